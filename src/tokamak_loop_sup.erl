%% SPDX-License-Identifier: Apache-2.0
%% @doc Supervises the processes of loops. They are temporary: a loop cannot be brought back, whoever
%% wants another makes one (as {@link tokamak_router} does).
%% @private
-module(tokamak_loop_sup).
-behaviour(supervisor).

-export([start_link/0, start_loop/1, start_selector/1, start_adoption/1]).
-export([start_process/2]).
-export([init/1]).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @doc Starts a supervised loop.
-spec start_loop(map()) -> {ok, tokamak_nif:loop()} | {error, term()}.
start_loop(Options) ->
    case start_child([tokamak_loop_server, Options]) of
        {ok, _Pid, Loop} -> {ok, Loop};
        {error, _} = Error -> Error
    end.

%% @doc Starts the process that selects for a raw loop.
-spec start_selector(tokamak_nif:loop()) -> ok | {error, term()}.
start_selector(Loop) ->
    case start_child([tokamak_selector, Loop]) of
        {ok, _Pid} -> ok;
        {error, _} = Error -> Error
    end.

%% @doc Starts the process that owns an adopted socket.
-spec start_adoption({pid(), tokamak_adoption:source()}) -> {ok, pid()} | {error, term()}.
start_adoption(AdopterAndSource) ->
    case start_child([tokamak_adoption, AdopterAndSource]) of
        {ok, Pid} when is_pid(Pid) -> {ok, Pid};
        {error, _} = Error -> Error
    end.

start_child(Args) ->
    try
        supervisor:start_child(?MODULE, Args)
    catch
        exit:_ -> {error, shutdown}
    end.

%% @private
-spec start_process(module(), term()) -> {ok, pid()} | {ok, pid(), term()} | {error, term()}.
start_process(Module, Arg) ->
    Module:start_link(Arg).

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Flags = #{strategy => simple_one_for_one},
    Child = #{id => loop, start => {?MODULE, start_process, []}, restart => temporary},
    {ok, {Flags, [Child]}}.
