%% SPDX-License-Identifier: Apache-2.0
%% @doc How a call finds its engine and words what is wrong with its arguments.
%% @private
-module(tokamak_call).

-export([resolve/1, ensure/2, in_engine/3, are_many/1, explain/2]).

%% Each takes some 200 ns to decode and start.
-define(MANY, 2000).

%% @doc The engine and the name of an operation.
-spec resolve(term()) -> {module(), atom()} | error.
resolve(Name) when is_atom(Name) -> {tokamak_nif, Name};
resolve({Engine, Name}) when is_atom(Engine), is_atom(Name) -> {Engine, Name};
resolve(_) -> error.

%% @doc Runs a native call of an engine; one that was never called has its runtime started first.
-spec in_engine(module(), atom(), fun(() -> Result)) -> Result | {error, term()}.
in_engine(Engine, Name, Call) ->
    case ensure(Engine, Name) of
        ok -> Call();
        {error, _} = Error -> Error
    end.

%% @doc Starts the runtime of an engine, for a call of an operation, if it was never called.
-spec ensure(module(), atom()) -> ok | {error, term()}.
ensure(tokamak_nif, _Name) ->
    ok;
ensure(Engine, Name) ->
    case lists:member(Engine, tokamak_engines:all()) of
        true ->
            ok;
        false ->
            case tokamak_engines:ensure(Engine) of
                {error, unknown} -> {error, {unknown_operation, {Engine, Name}}};
                Result -> Result
            end
    end.

%% @doc Whether so many calls, started by one native call, would hold a scheduler for too long.
-spec are_many([term()]) -> boolean().
are_many(Calls) ->
    length(Calls) > ?MANY.

%% @doc Words what is wrong with an operation's arguments.
-spec explain(non_neg_integer(), binary() | string()) -> string().
explain(0, Expected) ->
    lists:flatten(io_lib:format("not ~ts", [Expected]));
explain(Index, Expected) ->
    lists:flatten(io_lib:format("its element ~b is not a ~ts", [Index, Expected])).
