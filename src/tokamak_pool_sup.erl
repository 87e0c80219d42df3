%% SPDX-License-Identifier: Apache-2.0
%% @doc Supervises what runs of pools need in Erlang: the worker processes of a run, one manager a run.
%% @private
-module(tokamak_pool_sup).
-behaviour(supervisor).

-export([start_link/0, start_child/2]).
-export([init/1, start_run/2]).

-spec start_link() -> supervisor:startlink_ret() | ignore.
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @doc Starts a process of a run.
-spec start_child(module(), term()) -> {ok, pid()} | {error, shutdown}.
start_child(Module, Argument) ->
    try supervisor:start_child(?MODULE, [Module, Argument]) of
        {ok, Pid} -> {ok, Pid};
        _ -> {error, shutdown}
    catch
        exit:_ -> {error, shutdown}
    end.

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Flags = #{strategy => simple_one_for_one},
    Child = #{id => run, start => {?MODULE, start_run, []}, restart => temporary, shutdown => 1000},
    {ok, {Flags, [Child]}}.

%% @private
-spec start_run(module(), term()) -> supervisor:startchild_ret().
start_run(Module, Argument) ->
    Module:start_link(Argument).
