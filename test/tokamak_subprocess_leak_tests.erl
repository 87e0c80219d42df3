%% SPDX-License-Identifier: Apache-2.0
%% What a child must not inherit, and what many children must not leave behind.
-module(tokamak_subprocess_leak_tests).

-include_lib("eunit/include/eunit.hrl").

-define(s, tokamak_subprocess).
-define(ROUNDS, 1000).

leak_test_() ->
    {setup, fun() -> {ok, _} = application:ensure_all_started(tokamak) end,
        fun(_) -> application:stop(tokamak) end, [
            {"a child has its three descriptors and no other", fun descriptors/0},
            {"a child blocks and ignores no signal", fun signal_mask/0},
            {"a cleared environment shows nothing of the VM's", fun secrets/0},
            {"1,000 random rounds leave no zombie, orphan, descriptor or memory", {timeout, 120, fun random_rounds/0}}
        ]}.

descriptors() ->
    {ok, Fd, _} = tokamak_fd:pipe(),
    {ok, Other} = ?s:start(["cat"]),
    {ok, #{stdout := Out}} = ?s:run(["sh", "-c", "ls /proc/$$/fd"]),
    ?assertEqual([<<"0">>, <<"1">>, <<"2">>], [N || N <- binary:split(Out, <<"\n">>, [global]), N =/= <<>>]),
    ok = ?s:stop(Other),
    ok = tokamak_fd:close(Fd).

signal_mask() ->
    {ok, #{stdout := Out}} = ?s:run(["grep", "^Sig[BI]", "/proc/self/status"]),
    ?assertEqual(<<"SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n">>, Out).

secrets() ->
    true = os:putenv("TOKAMAK_SECRET", "s3cret"),
    {ok, #{stdout := Out}} = ?s:run(["/usr/bin/env"], #{clear_env => true}),
    ?assertEqual(<<>>, Out),
    true = os:unsetenv("TOKAMAK_SECRET").

random_rounds() ->
    {ok, Spawner, _} = tokamak_nif:subprocess_spawner(),
    rounds(200),
    settled(Spawner),
    Files = tokamak_wait:open_files(),
    Memory = tokamak_wait:resident_kib(),
    rounds(?ROUNDS),
    settled(Spawner),
    ?assertMatch({ok, Spawner, _}, tokamak_nif:subprocess_spawner()),
    tokamak_wait:until(fun() -> tokamak_wait:open_files() =< Files end),
    ?assert(tokamak_wait:resident_kib() - Memory < 16384).

%% Rounds run side by side, each in a process that may die at any time.
rounds(0) ->
    ok;
rounds(Left) ->
    Monitors = [element(2, spawn_monitor(fun round/0)) || _ <- lists:seq(1, min(20, Left))],
    [receive {'DOWN', Monitor, process, _, _} -> ok end || Monitor <- Monitors],
    rounds(Left - length(Monitors)).

round() ->
    Scripts = [
        "true", "exit 3", "cat", "yes", "sleep 86400", "echo a; echo b >&2", "kill -9 $$",
        "sleep 86400 & exit 0", "trap '' TERM; echo up; sleep 86400", "exec >&- 2>&-; sleep 86400"
    ],
    case ?s:start(["sh", "-c", one_of(Scripts)], #{kill_timeout => one_of([0, 20, 100])}) of
        {ok, P} -> [step(one_of(steps()), P) || _ <- lists:seq(1, rand:uniform(6))];
        {error, _} -> exit(not_started)
    end.

steps() ->
    [recv, active, passive, write, flood, close, stop, signal, die, nothing].

step(recv, P) -> ?s:recv(P, rand:uniform(10));
step(active, P) -> ?s:active(P, rand:uniform(5));
step(passive, P) -> ?s:active(P, false);
step(write, P) -> ?s:write(P, "line\n", 5);
step(flood, P) -> ?s:write(P, binary:copy(<<"x">>, 200000), 5);
step(close, P) -> ?s:close_stdin(P);
step(stop, P) -> ?s:stop(P);
step(signal, P) -> ?s:signal(P, one_of([sighup, sigint, sigusr1, sigkill]));
step(die, _) -> exit(kill);
step(nothing, _) -> erlang:yield().

one_of(List) ->
    lists:nth(rand:uniform(length(List)), List).

%% Everything that the rounds started is gone.
settled(Spawner) ->
    tokamak_wait:until(fun() ->
        erlang:garbage_collect(),
        tokamak_wait:children(Spawner) =:= [] andalso maps:get(subprocesses, tokamak:stats()) =:= 0
    end, 20000),
    ?assertEqual([], zombies_of(list_to_integer(os:getpid()))).

zombies_of(OsPid) ->
    [Child || Child <- tokamak_wait:children(OsPid), not tokamak_wait:is_running(Child)].
