%% SPDX-License-Identifier: Apache-2.0
%% @doc Supervises the application: the native services, the engines, the loops, the set of loops.
%% @private
-module(tokamak_sup).
-behaviour(supervisor).

-export([start_link/0]).
-export([init/1]).

-spec start_link() -> supervisor:startlink_ret() | ignore.
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    ok = tokamak_router:create_table(),
    ok = tokamak_pool_spread:create_table(),
    ok = tokamak_remote:create_table(),
    Flags = #{strategy => one_for_one, intensity => 10, period => 10},
    Children = [
        #{id => reaper, start => {tokamak_reaper, start_link, []}},
        #{id => pg, start => {pg, start_link, [tokamak]}},
        #{id => engines, start => {tokamak_engines, start_link, []}},
        #{id => alarms, start => {tokamak_alarms, start_link, []}},
        #{id => loops, start => {tokamak_loop_sup, start_link, []}, type => supervisor},
        #{id => pools, start => {tokamak_pool_sup, start_link, []}, type => supervisor},
        #{id => router, start => {tokamak_router, start_link, []}}
    ],
    {ok, {Flags, Children}}.
