%% SPDX-License-Identifier: Apache-2.0
%% @doc The application's environment, checked when it starts.
%%
%% docs/configuration.md says what each key does.
%% @private
-module(tokamak_config).

-export([check/0, get/1, defaults/0]).

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

%% @doc All keys with their defaults.
-spec defaults() -> #{atom() => term()}.
defaults() ->
    maps:map(fun(_Key, {Default, _IsValid, _Expected}) -> Default end, keys()).

keys() ->
    Schedulers = erlang:system_info(schedulers_online),
    #{
        loops => {Schedulers, between(1, 1024), "an integer from 1 to 1024"},
        worker_threads => {Schedulers, between(1, 1024), "an integer from 1 to 1024"},
        max_blocking_threads => {64, between(1, 10000), "an integer from 1 to 10000"},
        max_in_flight => {262144, between(1, 16777216), "an integer from 1 to 16777216"},
        busy_poll => {50, between(0, 500), "a number of microseconds from 0 to 500"},
        progress_interval =>
            {100, between(1, 16#FFFFFFFF), "a number of milliseconds from 1 to 2^32-1"},
        starvation_threshold =>
            {1000, between(10, 16#FFFFFFFF), "a number of milliseconds from 10 to 2^32-1"},
        drain_timeout =>
            {5000, between(0, 16#FFFFFFFF), "a number of milliseconds from 0 to 2^32-1"}
    }.

between(Low, High) ->
    fun(Value) -> is_integer(Value) andalso Value >= Low andalso Value =< High end.
