%% SPDX-License-Identifier: Apache-2.0
%% Subprocesses where the system watches no more pipes (`fs.epoll.max_user_watches' is used up): slower, but nothing
%% is lost. In a VM whose epoll refuses, see test/support/epoll_full.c.
-module(tokamak_subprocess_unwatched_tests).

-include_lib("eunit/include/eunit.hrl").

-define(s, tokamak_subprocess).
-define(PATIENCE, 60_000).
%% Numbers of the file.
-define(IS_FULL, 0).
-define(REFUSALS, 1).

unwatched_test_() ->
    tokamak_test:cases(120, [
        {"all output comes, and the exit after it", fun() -> refused(fun output/0) end},
        {"both outputs come, each in its order", fun() -> refused(fun both_outputs/0) end},
        {"output comes as messages, by credit", fun() -> refused(fun messages/0) end},
        {"a loop is told of output and exit", fun() -> refused(fun loop/0) end},
        {"a child is talked with, line by line", fun() -> refused(fun conversation/0) end},
        {"a write waits for a child that reads later, and times out for one that does not", fun() -> refused(fun writes/0) end},
        {"a child that is killed, and one whose spawner dies, end as ever", fun() -> refused(fun ends/0) end},
        {"a receive that waits takes no processor time to speak of", fun() -> refused(fun idle/0) end},
        {"pipes are watched again once there is room", fun room_again/0}
    ]).

%% A test in a VM that cannot watch pipes.
refused(Test) ->
    with_peer(fun(Peer, File) ->
        ok = preloaded_peer:set(File, ?IS_FULL, 1),
        in_peer(Peer, Test),
        ?assert(preloaded_peer:get(File, ?REFUSALS) > 0)
    end).

with_peer(Fun) ->
    preloaded_peer:with("epoll_full.so", "EPOLL_FULL_FILE", 2, fun(Peer, File) ->
        {ok, _} = peer:call(Peer, application, ensure_all_started, [tokamak]),
        Fun(Peer, File)
    end).

in_peer(Peer, Test) ->
    peer:call(Peer, erlang, apply, [Test, []], ?PATIENCE).

output() ->
    {ok, P} = ?s:start(["sh", "-c", "sleep 0.1; head -c 3000000 /dev/zero; sleep 0.1; echo end; exit 3"]),
    {Output, {exit, 3}} = collect(P, <<>>),
    ?assertEqual(<<0:3000000/unit:8, "end\n">>, Output).

both_outputs() ->
    {ok, P} = ?s:start(["sh", "-c", "for i in 1 2 3; do sleep 0.05; echo $i; echo -$i >&2; done"]),
    ?assertEqual({{<<"1\n2\n3\n">>, <<"-1\n-2\n-3\n">>}, {exit, 0}}, collect_both(P, {<<>>, <<>>})).

messages() ->
    {ok, P} = ?s:start(["sh", "-c", "sleep 0.05; echo one; sleep 0.05; echo two"]),
    ok = ?s:active(P, 3),
    ?assertEqual(
        [{stdout, <<"one\n">>}, {stdout, <<"two\n">>}, {exit, 0}],
        [receive {tokamak, P, What} -> What after ?PATIENCE -> late end || _ <- [1, 2, 3]]
    ).

loop() ->
    {ok, Loop} = tokamak_loop:new(),
    {ok, _} = ?s:start(["sh", "-c", "sleep 0.05; echo out; sleep 0.05; exit 4"], #{loop => {Loop, 7}}),
    ?assertEqual([{7, subprocess_stdout, <<"out\n">>}], tokamak_loop:poll(Loop, ?PATIENCE)),
    ?assertEqual([{7, subprocess_exit, 4}], tokamak_loop:poll(Loop, ?PATIENCE)),
    ok = tokamak_loop:destroy(Loop).

conversation() ->
    {ok, P} = ?s:start(["cat"]),
    [
        begin
            Line = <<(integer_to_binary(N))/binary, "\n">>,
            ok = ?s:write(P, Line, ?PATIENCE),
            ?assertEqual({ok, {stdout, Line}}, ?s:recv(P, ?PATIENCE))
        end
     || N <- lists:seq(1, 50)
    ],
    ok = ?s:close_stdin(P),
    ?assertEqual({exit, 0}, ?s:recv(P, ?PATIENCE)).

writes() ->
    {ok, Deaf} = ?s:start(["sleep", "86400"]),
    ?assertEqual({error, timeout}, ?s:write(Deaf, <<0:4000000/unit:8>>, 100)),
    ok = ?s:stop(Deaf),
    {ok, P} = ?s:start(["sh", "-c", "sleep 0.2; wc -c"]),
    ?assertEqual(ok, ?s:write(P, <<0:4000000/unit:8>>, ?PATIENCE)),
    ok = ?s:close_stdin(P),
    {Count, {exit, 0}} = collect(P, <<>>),
    ?assertEqual(<<"4000000">>, string:trim(Count)).

ends() ->
    {ok, Stopped} = ?s:start(["sleep", "86400"]),
    {ok, Orphan} = ?s:start(["sleep", "86400"]),
    ?assertEqual([{error, timeout}, {error, timeout}], [?s:recv(P, 50) || P <- [Stopped, Orphan]]),
    ok = ?s:stop(Stopped),
    ?assertEqual({exit, {signal, 15}}, ?s:recv(Stopped, ?PATIENCE)),
    tokamak_wait:kill_spawner(),
    ?assertEqual({error, spawner_died}, ?s:recv(Orphan, ?PATIENCE)).

idle() ->
    {ok, P} = ?s:start(["sleep", "86400"]),
    Before = tokamak_test:own_cpu_ticks(),
    ?assertEqual({error, timeout}, ?s:recv(P, 1000)),
    %% Of a hundred in a second.
    ?assert(tokamak_test:own_cpu_ticks() - Before < 20),
    ok = ?s:stop(P).

room_again() ->
    with_peer(fun(Peer, File) ->
        ok = preloaded_peer:set(File, ?IS_FULL, 1),
        {ok, Owner, P} = in_peer(Peer, fun start_receiver/0),
        tokamak_wait:until(fun() -> preloaded_peer:get(File, ?REFUSALS) > 3 end),
        ok = preloaded_peer:set(File, ?IS_FULL, 0),
        Settled = fun() ->
            %% One that was about to be refused may still be.
            Refusals = preloaded_peer:get(File, ?REFUSALS),
            timer:sleep(100),
            Refusals =:= preloaded_peer:get(File, ?REFUSALS)
        end,
        tokamak_wait:until(Settled),
        ?assertEqual({ok, {stdout, <<"late\n">>}}, in_peer(Peer, fun() -> answer(Owner, P) end))
    end).

%% A process that waits for what its child says once it was told something.
start_receiver() ->
    Self = self(),
    Owner = spawn(fun() ->
        {ok, P} = ?s:start(["sh", "-c", "read line; echo late; read line"]),
        Self ! {self(), P},
        Result = ?s:recv(P, ?PATIENCE),
        receive {From, result} -> From ! {self(), Result} end
    end),
    receive {Owner, P} -> {ok, Owner, P} end.

answer(Owner, P) ->
    ok = ?s:write(P, "go\n"),
    Owner ! {self(), result},
    receive {Owner, Result} -> Result end.

collect(P, Output) ->
    case ?s:recv(P, ?PATIENCE) of
        {ok, {stdout, More}} -> collect(P, <<Output/binary, More/binary>>);
        End -> {Output, End}
    end.

collect_both(P, {Out, Err}) ->
    case ?s:recv(P, ?PATIENCE) of
        {ok, {stdout, More}} -> collect_both(P, {<<Out/binary, More/binary>>, Err});
        {ok, {stderr, More}} -> collect_both(P, {Out, <<Err/binary, More/binary>>});
        End -> {{Out, Err}, End}
    end.
