%% SPDX-License-Identifier: Apache-2.0
%% @doc The application.
%% @private
-module(tokamak_app).
-behaviour(application).

-export([start/2, prep_stop/1, stop/1]).

%% @private
-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    maybe_start([fun tokamak_config:check/0, fun tokamak_nif_loader:ensure_loaded/0]).

maybe_start([]) ->
    started(tokamak_sup:start_link());
maybe_start([Check | Checks]) ->
    case Check() of
        ok -> maybe_start(Checks);
        {error, _} = Error -> Error
    end.

started({ok, Pid}) ->
    {ok, Pid};
started({error, _} = Error) ->
    ok = tokamak_nif:stop(),
    Error;
started(ignore) ->
    {error, ignored}.

%% @private Calls get their time to end while everything still runs.
-spec prep_stop(term()) -> term().
prep_stop(State) ->
    ok = tokamak_engines:stop_runtimes(),
    ok = tokamak_remote:shut_down(),
    State.

%% @private Raw loops belong to processes that live on: they are closed here.
-spec stop(term()) -> ok.
stop(_State) ->
    ok = tokamak_subprocess:shut_down(),
    ok = tokamak_nif:stop(),
    tokamak_reaper:reap().
