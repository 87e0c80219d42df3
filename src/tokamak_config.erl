%% SPDX-License-Identifier: Apache-2.0
%% @doc The application's environment, checked when it starts.
%%
%% docs/configuration.md says what each key does.
%% @private
-module(tokamak_config).

-export([check/0, get/1]).

%% @doc Checks all keys: an error names the key, its value and what was expected.
-spec check() -> ok | {error, {bad_config, atom(), term(), Expected :: string()}}.
check() ->
    check(maps:to_list(keys())).

check([]) ->
    ok;
check([{Key, {_Default, IsValid, Expected}} | Rest]) ->
    case application:get_env(tokamak, Key) of
        {ok, Value} ->
            case IsValid(Value) of
                true -> check(Rest);
                false -> {error, {bad_config, Key, Value, Expected}}
            end;
        undefined ->
            check(Rest)
    end.

%% @doc The value of a key.
-spec get(atom()) -> term().
get(Key) ->
    #{Key := {Default, _IsValid, _Expected}} = keys(),
    application:get_env(tokamak, Key, Default).

keys() ->
    #{
        loops =>
            {erlang:system_info(schedulers_online), between(1, 1024), "an integer from 1 to 1024"}
    }.

between(Low, High) ->
    fun(Value) -> is_integer(Value) andalso Value >= Low andalso Value =< High end.
