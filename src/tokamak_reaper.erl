%% SPDX-License-Identifier: Apache-2.0
%% @doc Starts the native services, and closes the selected descriptors of dead owners: deselecting is
%% for scheduler threads, so the native janitor hands them over to this process. It also logs for native code.
%% @private
-module(tokamak_reaper).
-behaviour(gen_server).

-export([start_link/0, reap/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").

-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Closes what dead processes left selected.
-spec reap() -> ok.
reap() ->
    case tokamak_nif:fd_reap() of
        more -> reap();
        ok -> ok
    end.

%% @private
-spec init([]) -> {ok, #{}} | {stop, term()}.
init([]) ->
    case tokamak_nif:start(tokamak_config:get(progress_interval), tokamak_config:get(busy_poll)) of
        ok ->
            ok = reap(),
            {ok, #{}};
        {error, Reason} -> {stop, Reason}
    end.

%% @private
-spec handle_call(term(), gen_server:from(), State) -> {reply, {error, unknown}, State}.
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), State) -> {noreply, State}.
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), State) -> {noreply, State}.
handle_info(reap, State) ->
    ok = reap(),
    {noreply, State};
handle_info({evicted, Count}, State) ->
    #{shown := Shown, held_back := HeldBack} = tokamak_nif:progress_stats(),
    ?LOG_DEBUG(
        "tokamak: forgot ~b idle progress keys; of all reports ~b were shown and ~b held back",
        [Count, Shown, HeldBack],
        #{domain => [tokamak]}
    ),
    {noreply, State};
handle_info(_Message, State) ->
    {noreply, State}.
