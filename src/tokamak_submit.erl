%% SPDX-License-Identifier: Apache-2.0
%% @doc Submits operations to loops, for {@link tokamak_loop}.
%% @private
-module(tokamak_submit).

-export([submit/2]).

-include("tokamak_error.hrl").

%% @doc Submits calls to a loop; `badarg': an argument is wrong that is not an operation's.
-spec submit(term(), term()) -> ok | badarg | {error, term()}.
submit(Loop, Calls) ->
    case tokamak_nif:loop_owner(Loop) of
        badarg -> badarg;
        {error, closed} = Error -> Error;
        _Owner -> submit_checked(Loop, Calls)
    end.

submit_checked(Loop, Calls) when is_list(Calls) ->
    case by_engine(Calls, #{}) of
        error -> badarg;
        Groups -> each(Loop, maps:to_list(Groups))
    end;
submit_checked(_Loop, _Calls) ->
    badarg.

by_engine([{Id, Op, Args} | Rest], Groups) when ?IS_CALLBACK_ID(Id), is_list(Args) ->
    case Op of
        {Engine, Name} when is_atom(Engine), is_atom(Name) ->
            by_engine(Rest, add(Engine, {Id, Name, Args}, Groups));
        Name when is_atom(Name) ->
            by_engine(Rest, add(tokamak_nif, {Id, Name, Args}, Groups));
        _ ->
            error
    end;
by_engine([], Groups) ->
    maps:map(fun(_Engine, Calls) -> lists:reverse(Calls) end, Groups);
by_engine(_Wrong, _Groups) ->
    error.

add(Engine, Call, Groups) ->
    Groups#{Engine => [Call | maps:get(Engine, Groups, [])]}.

each(_Loop, []) ->
    ok;
each(Loop, [{Engine, Calls} | Rest]) ->
    case in_engine(Loop, Engine, Calls) of
        ok -> each(Loop, Rest);
        Error -> Error
    end.

in_engine(Loop, Engine, [{_Id, Name, _Args} | _] = Calls) ->
    case tokamak_call:in_engine(Engine, Name, fun() -> native(Engine, Loop, Calls) end) of
        {error, {badarg, Index, Expected}} ->
            {error, {badarg, tokamak_call:explain(Index, Expected)}};
        Result ->
            Result
    end.

native(Engine, Loop, Calls) ->
    case tokamak_call:are_many(Calls) of
        true -> Engine:op_submit_many(Loop, Calls);
        false -> Engine:op_submit(Loop, Calls)
    end.
