%% SPDX-License-Identifier: Apache-2.0
%% How children end: with their owner, the VM, the spawner, the application; and what refuses to.
-module(tokamak_subprocess_ends_tests).

-include_lib("eunit/include/eunit.hrl").

-define(s, tokamak_subprocess).
%% Beyond the kill timeout, in milliseconds.
-define(GRACE, 1000).

ends_test_() ->
    {setup, fun() -> {ok, _} = application:ensure_all_started(tokamak) end,
        fun(_) -> application:stop(tokamak) end, [
            {"a child dies with its owner, also when its handle lives elsewhere", fun owner_dies/0},
            {"a child and a daemon that ignore TERM are killed after the kill timeout", fun term_ignored/0},
            {"a daemon that left its session and closed everything dies with the owner", fun daemon_dies/0},
            {"stop after the exit ends what was left behind", fun stop_after_exit/0},
            {"the exit comes though a descendant writes for ever, faster than it is read", {timeout, 60, fun descendant_writes/0}},
            {"the exit waits 5 s for the output that a grandchild still holds", {timeout, 30, fun grandchild_holds_pipe/0}},
            {"a child whose last handle is gone is stopped", fun handle_is_dropped/0},
            {"one with credit lives on without a handle", fun credit_keeps/0},
            {"early closed outputs are no exit", fun closes_output_early/0},
            {"a killed spawner ends all with an error at once, and the next start works", fun() -> tokamak_test:in_time(fun spawner_dies/0) end},
            {"a stopped application ends all, tells why, and starts again", fun application_stops/0},
            {"a start while the application is stopped says shutdown", fun start_while_stopped/0},
            {"a start that meets a stop has one end, and nothing comes after it", {timeout, 120, fun start_meets_stop/0}},
            {"a VM that is killed takes children, grandchildren and daemons with it", {timeout, 60, fun vm_is_killed/0}},
            {"init:stop in a VM with children ends them", {timeout, 60, fun vm_stops/0}}
        ]}.

owner_dies() ->
    Mark = mark(),
    Self = self(),
    Owner = spawn(fun() ->
        {ok, P} = ?s:start(["sleep", Mark]),
        Self ! {started, P},
        receive after infinity -> ok end
    end),
    P = receive {started, Handle} -> Handle end,
    {ok, OsPid} = ?s:os_pid(P),
    exit(Owner, kill),
    tokamak_wait:until(fun() -> not tokamak_wait:is_running(OsPid) end),
    tokamak_wait:until(fun() -> ?s:info(P) =:= {error, closed} end),
    ?assertEqual({error, closed}, ?s:write(P, "x")).

term_ignored() ->
    Mark = mark(),
    Script = "trap '' TERM; sleep " ++ Mark ++ " & echo up; sleep " ++ Mark ++ " & wait; wait; sleep " ++ Mark,
    {ok, P} = ?s:start(["sh", "-c", Script], #{kill_timeout => 300}),
    {ok, {stdout, <<"up\n">>}} = ?s:recv(P),
    Before = now_ms(),
    ok = ?s:stop(P),
    ?assertEqual({exit, {signal, 9}}, ?s:recv(P)),
    ?assert(now_ms() - Before >= 300),
    gone(Mark, 300).

daemon_dies() ->
    Mark = mark(),
    Self = self(),
    Owner = spawn(fun() ->
        Daemon = "setsid -f sleep " ++ Mark ++ " </dev/null >/dev/null 2>&1",
        {ok, P} = ?s:start(["sh", "-c", Daemon]),
        Self ! {ended, ?s:recv(P)},
        receive after infinity -> ok end
    end),
    receive {ended, End} -> ?assertEqual({exit, 0}, End) end,
    tokamak_wait:until(fun() -> length(tokamak_wait:with_argument(Mark)) =:= 1 end),
    exit(Owner, kill),
    gone(Mark, 2000).

stop_after_exit() ->
    Mark = mark(),
    {ok, P} = ?s:start(["sh", "-c", "setsid -f sleep " ++ Mark ++ " </dev/null >/dev/null 2>&1"]),
    ?assertEqual({exit, 0}, ?s:recv(P)),
    tokamak_wait:until(fun() -> length(tokamak_wait:with_argument(Mark)) =:= 1 end),
    ok = ?s:stop(P),
    gone(Mark, 2000),
    tokamak_wait:until(fun() -> ?s:stop(P) =:= {error, closed} end).

grandchild_holds_pipe() ->
    Mark = mark(),
    Before = now_ms(),
    {ok, P} = ?s:start(["sh", "-c", "sleep " ++ Mark ++ " & echo done; exit 4"]),
    ?assertEqual({ok, {stdout, <<"done\n">>}}, ?s:recv(P)),
    tokamak_wait:until(fun() -> maps:get(state, ?s:info(P)) =:= exited end),
    ?assertEqual({exit, 4}, ?s:recv(P, 10000)),
    %% It exited after the start; when it was seen to have exited may be much later.
    ?assert(now_ms() - Before >= 5000),
    ?assertMatch([_], tokamak_wait:with_argument(Mark)),
    ok = ?s:stop(P),
    gone(Mark, 2000).

handle_is_dropped() ->
    Mark = mark(),
    start_and_forget(["sleep", Mark], fun(_) -> ok end),
    erlang:garbage_collect(),
    gone(Mark, 2000).

credit_keeps() ->
    Mark = mark(),
    start_and_forget(["sh", "-c", "read x; echo $x " ++ Mark], fun(P) ->
        ok = ?s:active(P, 10),
        Self = self(),
        spawn(fun() ->
            ok = ?s:write(P, "hello\n"),
            Self ! written
        end)
    end),
    erlang:garbage_collect(),
    receive written -> ok end,
    Line = iolist_to_binary(["hello ", Mark, "\n"]),
    receive {tokamak, _, Output} -> ?assertEqual({stdout, Line}, Output) end,
    receive {tokamak, _, Last} -> ?assertEqual({exit, 0}, Last) end.

start_and_forget(Argv, Use) ->
    {ok, P} = ?s:start(Argv),
    _ = Use(P),
    ok.

closes_output_early() ->
    {ok, P} = ?s:start(["sh", "-c", "echo x; exec >&- 2>&-; read line; exit 6"]),
    ?assertEqual({ok, {stdout, <<"x\n">>}}, ?s:recv(P)),
    ?assertEqual({error, timeout}, ?s:recv(P, 50)),
    ok = ?s:write(P, "\n"),
    ?assertEqual({exit, 6}, ?s:recv(P)).

descendant_writes() ->
    {ok, P} = ?s:start(["sh", "-c", "echo first; while :; do echo x; sleep 0.01; done & exit 3"]),
    {Output, End} = receive_slowly(P, []),
    ?assertEqual({exit, 3}, End),
    ?assertMatch(<<"first\n", _/binary>>, Output).

receive_slowly(P, Output) ->
    timer:sleep(20),
    case ?s:recv(P, 30_000) of
        {ok, {stdout, Data}} -> receive_slowly(P, [Output, Data]);
        End -> {iolist_to_binary(Output), End}
    end.

spawner_dies() ->
    Mark = mark(),
    {ok, Waiting} = ?s:start(["sleep", Mark]),
    {ok, Active} = ?s:start(["sleep", Mark]),
    {ok, Exited} = ?s:start(["sh", "-c", "echo last words; exit 5"]),
    ok = ?s:active(Active, 1),
    tokamak_wait:until(fun() -> maps:get(state, ?s:info(Exited)) =:= exited end),
    {ok, Spawner, _} = tokamak_nif:subprocess_spawner(),
    Before = now_ms(),
    tokamak_wait:kill_spawner(),
    ?assertEqual({error, spawner_died}, ?s:recv(Waiting)),
    receive {tokamak, Active, End} -> ?assertEqual({error, spawner_died}, End) end,
    Elapsed = now_ms() - Before,
    ?assertEqual({error, closed}, ?s:recv(Waiting)),
    ?assertEqual({ok, {stdout, <<"last words\n">>}}, ?s:recv(Exited)),
    ?assertEqual({exit, 5}, ?s:recv(Exited)),
    ?assertMatch({ok, #{stdout := <<"again\n">>}}, ?s:run(["echo", "again"])),
    {ok, Next, _} = tokamak_nif:subprocess_spawner(),
    ?assertNotEqual(Spawner, Next),
    gone(Mark, 0),
    ok = tokamak_test:in_time(Elapsed, 500).

%% Its child has exited, and a descendant keeps the pipe without reading.
writer_is_told() ->
    {ok, P} = ?s:start(["sh", "-c", "exec 3<&0; sleep 86400 <&3 & exit 0"]),
    Self = self(),
    spawn_link(fun() -> Self ! {written, ?s:write(P, <<0:4000000/unit:8>>, infinity)} end),
    tokamak_wait:until(fun() -> maps:get(state, ?s:info(P)) =:= exited end),
    tokamak_wait:until(fun() -> ?s:write(P, "x", 0) =:= {error, timeout} end),
    quietly(fun() -> ok = application:stop(tokamak) end),
    receive {written, Result} -> ?assertEqual({error, closed}, Result) end,
    ok = application:start(tokamak).

application_stops() ->
    Mark = mark(),
    {ok, P} = ?s:start(["sh", "-c", "trap '' TERM; echo up; sleep " ++ Mark ++ "; sleep " ++ Mark], #{kill_timeout => 200}),
    {ok, {stdout, <<"up\n">>}} = ?s:recv(P),
    {ok, Active} = ?s:start(["sleep", Mark]),
    ok = ?s:active(Active, 1),
    {ok, Spawner, _} = tokamak_nif:subprocess_spawner(),
    quietly(fun() -> ok = application:stop(tokamak) end),
    ?assertNot(tokamak_wait:is_running(Spawner)),
    ?assertEqual([], tokamak_wait:with_argument(Mark)),
    ?assertEqual({error, shutdown}, ?s:recv(P)),
    receive {tokamak, Active, End} -> ?assertEqual({error, shutdown}, End) end,
    ok = application:start(tokamak),
    writer_is_told(),
    ?assertMatch({ok, #{status := 0}}, ?s:run(["true"])).

start_while_stopped() ->
    quietly(fun() -> ok = application:stop(tokamak) end),
    ?assertEqual({error, shutdown}, ?s:run(["true"])),
    ok = application:start(tokamak).

start_meets_stop() ->
    tokamak_test:repeat(100, fun() ->
        Starters = [call_fixture:started(fun start_until_stopped/0) || _ <- lists:seq(1, 8)],
        receive after rand:uniform(5) - 1 -> quietly(fun() -> ok = application:stop(tokamak) end) end,
        Ends = [call_fixture:result(Starter) || Starter <- Starters],
        ?assertEqual([], lists:append(Ends)),
        ok = application:start(tokamak)
    end).

%% What is in the mailbox after the last end.
start_until_stopped() ->
    case ?s:start(["true"]) of
        {ok, P} ->
            case ?s:recv(P) of
                {exit, 0} -> start_until_stopped();
                {error, shutdown} -> start_until_stopped()
            end;
        {error, shutdown} ->
            tokamak_test:mailbox()
    end.

vm_is_killed() ->
    Mark = mark(),
    Peer = tokamak_peer:start(),
    tokamak_peer:call(Peer, fun() -> start_family(Mark) end),
    tokamak_wait:until(fun() -> length(tokamak_wait:with_argument(Mark)) =:= 9 end),
    tokamak_peer:kill(Peer),
    gone(Mark, 500).

vm_stops() ->
    Mark = mark(),
    Peer = tokamak_peer:start(),
    tokamak_peer:call(Peer, fun() -> start_family(Mark) end),
    tokamak_wait:until(fun() -> length(tokamak_wait:with_argument(Mark)) =:= 9 end),
    tokamak_peer:stop(Peer),
    gone(Mark, 500).

%% Three children with a grandchild and a daemon each, of a process that lives on.
start_family(Mark) ->
    Self = self(),
    spawn(fun() ->
        Script = "trap '' TERM; sleep " ++ Mark ++ " & setsid -f sleep " ++ Mark ++ "; exec sleep " ++ Mark,
        Started = [?s:start(["sh", "-c", Script], #{kill_timeout => 500}) || _ <- [1, 2, 3]],
        Self ! {started, Started},
        receive after infinity -> Started end
    end),
    receive {started, Started} -> [{ok, _}, {ok, _}, {ok, _}] = Started end,
    ok.

%%% Helpers

%% A number of seconds that no other process sleeps.
mark() ->
    "86400." ++ os:getpid() ++ integer_to_list(erlang:unique_integer([positive])).

gone(Mark, KillTimeout) ->
    tokamak_wait:until(fun() -> tokamak_wait:with_argument(Mark) =:= [] end, KillTimeout + ?GRACE).

now_ms() ->
    erlang:monotonic_time(millisecond).

quietly(Fun) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    try
        Fun()
    after
        ok = logger:set_primary_config(level, Level)
    end.
