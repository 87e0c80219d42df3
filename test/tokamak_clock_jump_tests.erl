%% SPDX-License-Identifier: Apache-2.0
%% The time of day jumps an hour, forward or back: no wait of the library becomes shorter or longer. In a VM whose
%% CLOCK_REALTIME is one that jumps, see test/support/clock_jump.c.
-module(tokamak_clock_jump_tests).

-include_lib("eunit/include/eunit.hrl").

-export([waits/1]).

-define(HOUR, 3600).
%% Of each wait, in milliseconds.
-define(WAIT, 300).
%% Erlang's own clock may go slower or faster by a hundredth after a jump.
-define(EARLY, (?WAIT - ?WAIT div 50)).
%% What an overloaded machine may add; an hour is much more.
-define(LATE, 60_000).

clock_jump_test_() ->
    tokamak_test:cases(120, [
        {"the time of day jumps forward: every wait takes its time", fun() -> jump(?HOUR) end},
        {"the time of day jumps back: every wait takes its time", fun() -> jump(-?HOUR) end}
    ]).

jump(Seconds) ->
    preloaded_peer:with("clock_jump.so", "CLOCK_OFFSET_FILE", 1, fun(Peer, Offset) ->
        Jump = fun() -> preloaded_peer:set(Offset, 0, Seconds) end,
        ok = peer:call(Peer, ?MODULE, waits, [Jump], 100_000),
        Shown = peer:call(Peer, os, system_time, [second]) - os:system_time(second),
        ?assert(abs(Shown - Seconds) < 60)
    end).

%% @doc In the other VM: the time of day jumps while everything waits that can wait.
waits(Jump) ->
    {ok, _} = application:ensure_all_started(tokamak),
    {ok, #{status := 0}} = tokamak_subprocess:run(["true"]),
    #{runtime := #{uptime := Before}} = tokamak:stats(),
    Test = self(),
    Waits = waits(),
    Waiting = [spawn_link(fun() -> wait(Wait, Test) end) || Wait <- Waits],
    [receive {Pid, waits} -> ok end || Pid <- Waiting],
    ok = Jump(),
    Took = [receive {Pid, took, Milliseconds} -> {Name, Milliseconds} end || {Pid, {Name, _}} <- lists:zip(Waiting, Waits)],
    [] = [Wrong || {_, Milliseconds} = Wrong <- Took, Milliseconds < ?EARLY orelse Milliseconds > ?LATE],
    #{runtime := #{uptime := After}} = tokamak:stats(),
    %% In nanoseconds.
    true = After >= Before andalso (After - Before) div 1_000_000 < ?LATE,
    application:stop(tokamak).

wait({_Name, Prepare}, Test) ->
    Wait = Prepare(),
    Start = tokamak_test:clock(),
    Test ! {self(), waits},
    ok = Wait(),
    Test ! {self(), took, (tokamak_test:clock() - Start) div 1_000_000}.

%% What is prepared, and what then waits.
waits() ->
    [
        {operation, fun() -> fun() -> {ok, ok} = tokamak:call(sleep, [?WAIT], #{timeout => infinity}), ok end end},
        {time_out_of_a_call, fun() -> fun() -> {error, timeout} = tokamak:call(sleep, [600_000], #{timeout => ?WAIT}), ok end end},
        {time_out_of_a_run, fun() -> fun time_out_of_a_run/0 end},
        {timer, fun timer/0},
        {time_out_of_a_poll, fun time_out_of_a_poll/0},
        {progress, fun progress/0},
        {kill_timeout, fun kill_timeout/0},
        {time_out_of_a_write, fun time_out_of_a_write/0}
    ].

time_out_of_a_run() ->
    Endless = fun(N) -> {ok, N, [N + 1]} end,
    {error, timeout} = tokamak_pool:fold(Endless, [0], fun(_, Count) -> Count + 1 end, 0, #{timeout => ?WAIT}),
    ok.

timer() ->
    {ok, Loop} = tokamak_loop:new(),
    fun() ->
        Timer = tokamak_loop:start_timer(Loop, ?WAIT, 1),
        [{1, timer, Timer}] = tokamak_loop:poll(Loop, infinity),
        ok
    end.

time_out_of_a_poll() ->
    {ok, Loop} = tokamak_loop:new(),
    fun() ->
        [] = tokamak_loop:poll(Loop, ?WAIT),
        ok
    end.

%% The first report is shown at once, the next one an interval later.
progress() ->
    Ref = tokamak_progress:subscribe(key, #{interval => ?WAIT}),
    fun() ->
        ok = tokamak_progress:report(key, 1, 10),
        receive {tokamak, Ref, {progress, key, #{done := 1}}} -> ok end,
        ok = tokamak_progress:report(key, 2, 10),
        receive {tokamak, Ref, {progress, key, #{done := 2}}} -> ok end,
        ok
    end.

%% It ignores TERM, so KILL comes when its time is over.
kill_timeout() ->
    Argv = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"],
    {ok, P} = tokamak_subprocess:start(Argv, #{kill_timeout => ?WAIT}),
    {ok, {stdout, <<"ready\n">>}} = tokamak_subprocess:recv(P, infinity),
    fun() ->
        ok = tokamak_subprocess:stop(P),
        {exit, {signal, 9}} = tokamak_subprocess:recv(P, infinity),
        ok
    end.

time_out_of_a_write() ->
    {ok, P} = tokamak_subprocess:start(["sleep", "1000"]),
    fun() ->
        {error, timeout} = tokamak_subprocess:write(P, binary:copy(<<"x">>, 16_000_000), ?WAIT),
        ok
    end.
