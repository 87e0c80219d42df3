%% SPDX-License-Identifier: Apache-2.0
%% @doc Callback ids.
%%
%% One atomic counter for Erlang, native code and foreign runtimes: ids are unique, increasing, start
%% at 1, and are never used again while the VM lives. Both functions take some ten nanoseconds.
-module(tokamak_id).

-export([next/0, next/1]).

-include("tokamak_error.hrl").

%% @doc Takes the next id. Does not wait, and never fails.
%%
%% ```
%% Id = tokamak_id:next().
%% true = tokamak_id:next() > Id.
%% '''
-spec next() -> pos_integer().
next() ->
    tokamak_nif:id_next().

%% @doc Reserves `Count' consecutive ids and returns the first: `First' to `First + Count - 1' are the
%% caller's. Raises `badarg' when `Count' is not positive, above 2^40, or more than there are left.
%%
%% ```
%% First = tokamak_id:next(100).
%% true = tokamak_id:next() >= First + 100.
%% '''
-spec next(Count :: pos_integer()) -> First :: pos_integer().
next(Count) when is_integer(Count), Count >= 1 ->
    case tokamak_nif:id_reserve(Count) of
        First when is_integer(First) -> First;
        badarg -> ?EXPLAINED([Count], #{1 => "above 2^40, or more than there are left"})
    end;
next(Count) ->
    ?BADARG([Count], [count]).
