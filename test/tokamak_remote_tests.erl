%% SPDX-License-Identifier: Apache-2.0
%% @doc Calls and streams on other nodes.
-module(tokamak_remote_tests).

-include_lib("eunit/include/eunit.hrl").

%% Called on the other node.
-export([proxies/0]).

remote_test_() ->
    {setup, fun start/0, fun stop/1, fun({_Peer, Node}) ->
        [
            {Title, {timeout, 60, fun() -> Test(Node) end}}
         || {Title, Test} <- [
                {"a call runs on the node it names", fun call/1},
                {"any prefers this node", fun any_is_local/1},
                {"any is refused while the application is stopped", fun any_while_stopped/1},
                {"any finds a node that has the engine", fun any_is_remote/1},
                {"wrong arguments and unknown operations are errors", fun errors/1},
                {"a call that times out is cancelled over there", fun timeout/1},
                {"an asynchronous call ends by one message", fun async/1},
                {"await and cancel leave nothing in the mailbox", fun await_and_cancel/1},
                {"an end that its caller took is not waited for again", fun taken_end/1},
                {"a dead caller takes its call with it", fun dead_caller/1},
                {"callers that are killed while they cancel leave nothing", fun killed_cancellers/1},
                {"a stream comes in order and ends once", fun stream/1},
                {"a stream is produced on credit", fun credit/1},
                {"what comes after a time-out is for the next look, and in nobody's mailbox", fun late_items/1},
                {"who only looks gets each item once, in order", fun looks/1},
                {"a stream ends with its consumer", fun dead_consumer/1},
                {"a closed stream is cancelled over there", fun close/1},
                {"a node that is not there is nodedown", fun no_node/1},
                {"calls of a node that hangs time out", fun hung_calls/1},
                {"streams of a node that hangs time out", fun hung_streams/1},
                {"a way to a node that takes no more holds up nobody", fun blocked_way/1},
                {"the application stops while a node hangs", fun stopped_while_hung/1},
                {"asynchronous calls end with the application", fun stopped/1},
                {"who awaits a call while the application stops is told so", fun awaited_while_stopping/1}
            ]
        ]
    end}.

lost_node_test_() ->
    [
        {timeout, 60, {"a node that goes away ends calls and streams at once", fun lost_node/0}},
        {timeout, 60, {"a node that goes away between two looks leaves no message", fun lost_between_looks/0}}
    ].

start() ->
    ok = tokamak_peer:become_node("tokamak_remote_" ++ os:getpid()),
    {ok, _} = application:ensure_all_started(tokamak),
    start_peer().

start_peer() ->
    Paths = [Path || Path <- code:get_path(), string:find(Path, "tokamak") =/= nomatch],
    {ok, Peer, Node} = peer:start(#{name => peer:random_name(), args => ["-pa" | Paths]}),
    {ok, _} = rpc:call(Node, application, ensure_all_started, [tokamak]),
    {Peer, Node}.

stop({Peer, _Node}) ->
    ok = tokamak_peer:end_peer(Peer),
    _ = net_kernel:stop(),
    ok.

call(Node) ->
    ?assertEqual({ok, {a, <<"term">>}}, tokamak:call(echo, [{a, <<"term">>}], #{node => Node})),
    ?assertEqual({ok, ok}, tokamak:call(sleep, [1], #{node => Node})),
    nothing_left().

any_is_local(_Node) ->
    ?assertEqual({ok, 1}, tokamak:call(echo, [1], #{node => any})).

any_while_stopped(_Node) ->
    ok = tokamak_test:quietly(fun() -> application:stop(tokamak) end),
    Engine = tokamak_remote_tests_engine,
    Options = #{node => any},
    Ends = [
        [tokamak:call(Op, [1], Options), tokamak:await(tokamak:async(Op, [1], Options))]
     || Op <- [echo, {Engine, echo}]
    ],
    Stream = tokamak:stream({Engine, count}, [1, 0], Options),
    ok = application:start(tokamak),
    ?assertEqual(lists:duplicate(5, {error, shutdown}), [Stream | lists:append(Ends)]),
    nothing_left().

any_is_remote(Node) ->
    %% The engine is asked for by a name that only the other node announces.
    Group = {engine, tokamak_remote_tests_engine},
    ok = rpc:call(Node, pg, join, [tokamak, Group, rpc:call(Node, erlang, whereis, [tokamak_engines])]),
    tokamak_test:wait_until(fun() -> pg:get_members(tokamak, Group) =/= [] end),
    ?assertEqual(Node, tokamak_remote:node_for(any, tokamak_remote_tests_engine)),
    ?assertEqual(
        {error, {unknown_operation, {tokamak_remote_tests_engine, x}}},
        tokamak:call({tokamak_remote_tests_engine, x}, [], #{node => any})
    ).

errors(Node) ->
    Options = #{node => Node},
    ?assertEqual({error, {unknown_operation, nope}}, tokamak:call(nope, [], Options)),
    ?assertMatch({error, {badarg, _}}, tokamak:call(sleep, [x], Options)),
    ?assertMatch({error, {enoent, _}}, tokamak:call(list_dir, ["/nonexistent"], Options)),
    ?assertEqual({error, {unknown_operation, nope}}, tokamak:stream(nope, [], Options)),
    ?assertError(badarg, tokamak:call(echo, [1], #{node => "x"})),
    nothing_left().

timeout(Node) ->
    ?assertEqual({error, timeout}, tokamak:call(sleep, [60000], #{node => Node, timeout => 50})),
    idle(Node),
    nothing_left().

async(Node) ->
    Ref = tokamak:async(sleep, [10], #{node => Node}),
    receive
        {tokamak, Ref, End} -> ?assertEqual({ok, ok}, End)
    after 5000 -> ?assert(false)
    end,
    tokamak_test:wait_until(fun() -> tokamak_remote:helper_of(Ref) =:= none end),
    ?assertEqual({error, closed}, tokamak:await(Ref)),
    nothing_left().

await_and_cancel(Node) ->
    Refs = [tokamak:async(sleep, [N rem 5], #{node => Node}) || N <- lists:seq(1, 50)],
    ?assert(lists:all(fun(End) -> End =:= {ok, ok} end, tokamak:await_many(Refs, 5000))),
    Late = tokamak:async(sleep, [60000], #{node => Node}),
    ?assertEqual({error, timeout}, tokamak:await(Late, 20)),
    ?assertEqual({error, closed}, tokamak:await(Late)),
    Racing = [tokamak:async(sleep, [N rem 5], #{node => Node}) || N <- lists:seq(1, 50)],
    [ok = tokamak:cancel(Ref) || Ref <- Racing],
    Mine = tokamak:async(sleep, [1], #{node => Node}),
    tokamak_test:in_process(fun() -> ?assertError(not_owner, tokamak:await(Mine)) end),
    ?assertEqual({ok, ok}, tokamak:await(Mine)),
    idle(Node),
    nothing_left().

%% A helper that has sent its end, and not ended itself, is played by another process.
taken_end(Node) ->
    InAwait = fun(Caller, Helper) ->
        {monitored_by, Watchers} = process_info(Helper, monitored_by),
        lists:member(Caller, Watchers)
    end,
    InAwaitAny = fun(Caller, _Helper) ->
        process_info(Caller, current_function) =:= {current_function, {tokamak, await_first, 3}}
    end,
    await_taken(Node, InAwait, fun(Ref) -> ?assertEqual({error, closed}, tokamak:await(Ref, infinity)) end),
    await_taken(Node, InAwaitAny, fun(Ref) ->
        ?assertEqual({Ref, {error, closed}}, tokamak:await_any([Ref], infinity))
    end),
    nothing_left().

await_taken(Node, IsWaiting, Await) ->
    Ref = tokamak:async(echo, [1], #{node => Node}),
    receive {tokamak, Ref, {ok, 1}} -> ok end,
    tokamak_test:wait_until(fun() -> tokamak_remote:helper_of(Ref) =:= none end),
    Helper = spawn(fun() ->
        receive
            go_on -> ets:delete(tokamak_remote, Ref)
        end
    end),
    true = ets:insert(tokamak_remote, {Ref, Helper, sending}),
    Caller = self(),
    _ = spawn(fun() ->
        tokamak_test:wait_until(fun() -> IsWaiting(Caller, Helper) end),
        Helper ! go_on
    end),
    Await(Ref),
    ?assertEqual(none, tokamak_remote:helper_of(Ref)).

dead_caller(Node) ->
    {Caller, Monitor} = spawn_monitor(fun() ->
        _ = tokamak:async(sleep, [60000], #{node => Node}),
        tokamak:call(sleep, [60000], #{node => Node, timeout => infinity})
    end),
    tokamak_test:wait_until(fun() -> in_flight(Node) =:= 2 end),
    exit(Caller, kill),
    receive {'DOWN', Monitor, process, Caller, _} -> ok end,
    idle(Node).

%% Killed in all moments, among them the one in which a helper is dead and its caller has not seen that.
killed_cancellers(Node) ->
    Kill = fun(Round) ->
        {Caller, Monitor} = spawn_monitor(fun() -> cancel_for_ever(Node) end),
        spin(erlang:monotonic_time(microsecond) + 200 + 7 * (Round rem 100)),
        exit(Caller, kill),
        receive {'DOWN', Monitor, process, Caller, Reason} -> ?assertEqual(killed, Reason) end
    end,
    lists:foreach(Kill, lists:seq(1, 1000)),
    tokamak_test:wait_until(fun() -> ets:tab2list(tokamak_remote) =:= [] end),
    idle(Node).

cancel_for_ever(Node) ->
    ok = tokamak:cancel(tokamak:async(sleep, [60000], #{node => Node})),
    cancel_for_ever(Node).

spin(Until) ->
    erlang:monotonic_time(microsecond) < Until andalso spin(Until).

stream(Node) ->
    Stream = tokamak:stream(count, [1000, 0], #{node => Node}),
    Items = [begin {ok, Item} = tokamak:next(Stream), Item end || _ <- lists:seq(1, 1000)],
    ?assertEqual(lists:seq(1, 1000), Items),
    ?assertEqual(done, tokamak:next(Stream)),
    ?assertEqual({error, closed}, tokamak:next(Stream)),
    Sum = fun(Item, Acc) -> Item + Acc end,
    ?assertEqual({ok, 5050}, tokamak:fold(Sum, 0, tokamak:stream(count, [100, 0], #{node => Node}))),
    idle(Node),
    nothing_left().

credit(Node) ->
    Stream = tokamak:stream(count, [1000000, 0], #{node => Node, window => 8}),
    {ok, 1} = tokamak:next(Stream),
    %% What was produced is in two windows at most, so the mailbox holds one message at most.
    {message_queue_len, Length} = process_info(self(), message_queue_len),
    ?assert(Length =< 1),
    ?assertEqual(1, in_flight(Node)),
    ok = tokamak:close(Stream),
    idle(Node),
    nothing_left().

late_items(Node) ->
    Stream = tokamak:stream(count, [3, 100], #{node => Node}),
    ?assertEqual({error, timeout}, tokamak:next(Stream, 0)),
    %% A second stream of the same pace: when its first item is here, that of the first one has come, too.
    Other = tokamak:stream(count, [1, 100], #{node => Node}),
    ?assertEqual({ok, 1}, tokamak:next(Other)),
    ?assertEqual(done, tokamak:next(Other)),
    nothing_left(),
    ?assertEqual([{ok, 1}, {ok, 2}, {ok, 3}, done], [tokamak:next(Stream) || _ <- [1, 2, 3, 4]]),
    idle(Node),
    nothing_left().

looks(Node) ->
    Stream = tokamak:stream(count, [300, 0], #{node => Node, window => 4}),
    ?assertEqual(lists:seq(1, 300), look_at_all(Stream)),
    ?assertEqual({error, closed}, tokamak:next(Stream, 0)),
    idle(Node),
    nothing_left().

look_at_all(Stream) ->
    case tokamak:next(Stream, 0) of
        {ok, Item} ->
            [Item | look_at_all(Stream)];
        {error, timeout} ->
            nothing_left(),
            erlang:yield(),
            look_at_all(Stream);
        done ->
            []
    end.

dead_consumer(Node) ->
    [
        begin
            {Consumer, Monitor} = spawn_monitor(fun() ->
                Stream = tokamak:stream(count, [10, 60000], #{node => Node}),
                {error, timeout} = tokamak:next(Stream, Patience),
                receive after infinity -> ok end
            end),
            tokamak_test:wait_until(fun() -> in_flight(Node) =:= 1 end),
            exit(Consumer, kill),
            receive {'DOWN', Monitor, process, Consumer, _} -> ok end,
            idle(Node)
        end
     || Patience <- [0, infinity]
    ].

close(Node) ->
    Stream = tokamak:stream(count, [10, 60000], #{node => Node}),
    ?assertEqual({error, timeout}, tokamak:next(Stream, 20)),
    ok = tokamak:close(Stream),
    ?assertEqual({error, closed}, tokamak:next(Stream)),
    ok = tokamak:close(Stream),
    idle(Node),
    nothing_left().

no_node(_Node) ->
    Gone = 'not_there@localhost',
    ?assertEqual({error, nodedown}, tokamak:call(echo, [1], #{node => Gone})),
    ?assertEqual({error, nodedown}, tokamak:await(tokamak:async(echo, [1], #{node => Gone}))),
    ?assertEqual({error, nodedown}, tokamak:stream(count, [1, 0], #{node => Gone})),
    nothing_left().

hung_calls(Node) ->
    while_hung(Node, fun() ->
        Options = #{node => Node},
        ?assertEqual({error, timeout}, tokamak:call(echo, [1], Options#{timeout => 20})),
        Ref = tokamak:async(echo, [1], Options),
        ?assertEqual({error, timeout}, tokamak:await(Ref, 20)),
        ?assertEqual({error, closed}, tokamak:await(Ref)),
        ok = tokamak:cancel(tokamak:async(echo, [1], Options)),
        nothing_left()
    end),
    idle(Node),
    no_proxies(Node).

hung_streams(Node) ->
    Before = spawn_streamer(Node),
    while_hung(Node, fun() ->
        ?assertEqual({error, timeout}, tokamak_remote:stream(Node, count, [10, 60000], 4, 20)),
        nothing_left(),
        ?assertEqual({error, timeout}, tokamak_test:ask(Before, fun(Stream) -> tokamak:next(Stream, 20) end)),
        ?assertEqual(ok, tokamak_test:ask(Before, fun tokamak:close/1)),
        ?assertEqual([], tokamak_test:ask(Before, fun(_Stream) -> tokamak_test:mailbox() end))
    end),
    idle(Node),
    no_proxies(Node),
    tokamak_test:kill(Before).

%% A process with a stream of which it has taken one item.
spawn_streamer(Node) ->
    Streamer = tokamak_test:spawn_process(fun() ->
        Stream = tokamak:stream(count, [10, 0], #{node => Node, window => 1}),
        {ok, 1} = tokamak:next(Stream),
        Stream
    end),
    %% It answers once it has the item.
    ?assertEqual([], tokamak_test:ask(Streamer, fun(_Stream) -> tokamak_test:mailbox() end)),
    Streamer.

blocked_way(Node) ->
    Before = spawn_streamer(Node),
    while_hung(Node, fun() ->
        fill_way(Node),
        ?assertEqual({error, timeout}, tokamak:call(echo, [1], #{node => Node, timeout => 20})),
        ?assertEqual({error, timeout}, tokamak:await(tokamak:async(echo, [1], #{node => Node}), 20)),
        ?assertEqual({error, timeout}, tokamak_remote:stream(Node, count, [10, 60000], 4, 20)),
        ?assertEqual({error, timeout}, tokamak_test:ask(Before, fun(Stream) -> tokamak:next(Stream, 20) end)),
        nothing_left()
    end),
    %% Once there is room again, the stream goes on where it was.
    Sum = fun(Item, Acc) -> Item + Acc end,
    ?assertEqual({ok, 54}, tokamak_test:ask(Before, fun(Stream) -> tokamak:fold(Sum, 0, Stream) end)),
    idle(Node),
    no_proxies(Node),
    tokamak_test:kill(Before).

%% Sends to a node that hangs until there is room no more, and none comes.
fill_way(Node) ->
    fill_way(Node, binary:copy(<<0>>, 1 bsl 20), 20).

fill_way(_Node, _Data, 0) ->
    ok;
fill_way(Node, Data, Looks) ->
    case erlang:send({nobody, Node}, Data, [nosuspend]) of
        ok ->
            fill_way(Node, Data, 20);
        nosuspend ->
            receive
            after 5 -> fill_way(Node, Data, Looks - 1)
            end
    end.

stopped_while_hung(Node) ->
    while_hung(Node, fun() ->
        Ref = tokamak:async(sleep, [60000], #{node => Node}),
        fill_way(Node),
        Blocked = tokamak:async(sleep, [60000], #{node => Node}),
        ok = tokamak_test:quietly(fun() -> application:stop(tokamak) end),
        ?assertEqual([{error, shutdown}, {error, shutdown}], tokamak:await_many([Ref, Blocked], 5000)),
        nothing_left()
    end),
    ok = application:start(tokamak),
    idle(Node),
    no_proxies(Node).

%% Runs a test while a node does nothing. It goes on whatever becomes of the test.
while_hung(Node, Test) ->
    OsPid = rpc:call(Node, os, getpid, []),
    [] = os:cmd("kill -STOP " ++ OsPid),
    {Tester, Monitor} = spawn_monitor(fun() ->
        tokamak_test:wait_until(fun() -> is_stopped(OsPid) end),
        Test()
    end),
    Reason =
        receive
            {'DOWN', Monitor, process, Tester, End} -> End
        after 10000 -> held_up
        end,
    exit(Tester, kill),
    [] = os:cmd("kill -CONT " ++ OsPid),
    ?assertEqual(normal, Reason).

%% Each thread stops when it sees the signal.
is_stopped(OsPid) ->
    Stats = filelib:wildcard("/proc/" ++ OsPid ++ "/task/*/stat"),
    lists:all(
        fun(Stat) ->
            case file:read_file(Stat) of
                {ok, Line} -> nomatch =/= re:run(Line, "\\) T ");
                {error, _Ended} -> true
            end
        end,
        Stats
    ).

no_proxies(Node) ->
    tokamak_test:wait_for([], fun() -> rpc:call(Node, ?MODULE, proxies, []) end).

%% The processes of this node that work for others.
proxies() ->
    [Process || Process <- processes(), is_proxy(process_info(Process, initial_call))].

is_proxy({initial_call, {tokamak_remote, _, _}}) -> true;
is_proxy(_) -> false.

stopped(Node) ->
    Refs = [tokamak:async(sleep, [60000], #{node => Node}) || _ <- [1, 2]],
    tokamak_test:wait_until(fun() -> in_flight(Node) =:= 2 end),
    ok = tokamak_test:quietly(fun() -> application:stop(tokamak) end),
    Ends = [receive {tokamak, Ref, End} -> End after 5000 -> none end || Ref <- Refs],
    ?assertEqual([{error, shutdown}, {error, shutdown}], Ends),
    idle(Node),
    Before = erlang:system_info(process_count),
    ?assertEqual({error, shutdown}, tokamak:await(tokamak:async(sleep, [1], #{node => Node}))),
    tokamak_test:wait_until(fun() -> erlang:system_info(process_count) =< Before end),
    ok = application:start(tokamak),
    nothing_left().

awaited_while_stopping(Node) ->
    Ref = tokamak:async(sleep, [60000], #{node => Node}),
    tokamak_test:wait_until(fun() -> in_flight(Node) =:= 1 end),
    {ok, Helper} = tokamak_remote:helper_of(Ref),
    true = erlang:suspend_process(Helper),
    {Stopper, Monitor} = spawn_monitor(fun() -> tokamak_test:quietly(fun() -> application:stop(tokamak) end) end),
    tokamak_test:wait_until(fun() -> not is_process_alive(Stopper) orelse is_asked_to_end(Helper) end),
    %% As long as the call has no end it is known.
    ?assertEqual({ok, Helper}, tokamak_remote:helper_of(Ref)),
    true = erlang:resume_process(Helper),
    ?assertEqual({error, shutdown}, tokamak:await(Ref)),
    receive {'DOWN', Monitor, process, Stopper, _} -> ok end,
    ?assertEqual({error, closed}, tokamak:await(Ref)),
    idle(Node),
    ok = application:start(tokamak),
    nothing_left().

is_asked_to_end(Helper) ->
    {messages, Messages} = process_info(Helper, messages),
    lists:member(shutdown, Messages).

lost_node() ->
    Setup = {Peer, Node} = start(),
    Ref = tokamak:async(sleep, [60000], #{node => Node}),
    Stream = tokamak:stream(count, [10, 60000], #{node => Node}),
    {error, timeout} = tokamak:next(Stream, 0),
    tokamak_test:wait_until(fun() -> in_flight(Node) =:= 2 end),
    peer:stop(Peer),
    ?assertEqual({error, nodedown}, tokamak:await(Ref, 5000)),
    ?assertEqual({error, nodedown}, tokamak:next(Stream, 5000)),
    ?assertEqual({error, closed}, tokamak:next(Stream, 5000)),
    nothing_left(),
    stop(Setup).

lost_between_looks() ->
    Setup = {Peer, Node} = start(),
    Stream = tokamak:stream(count, [10, 60000], #{node => Node}),
    Taken = tokamak:stream(count, [1000, 0], #{node => Node, window => 2}),
    ?assertEqual({ok, 1}, tokamak:next(Taken)),
    ?assertEqual({error, timeout}, tokamak:next(Stream, 0)),
    tokamak_test:wait_until(fun() -> in_flight(Node) =:= 2 end),
    Monitor = monitor(process, rpc:call(Node, erlang, whereis, [tokamak_sup])),
    peer:stop(Peer),
    receive {'DOWN', Monitor, process, _, noconnection} -> ok end,
    nothing_left(),
    ?assertEqual({error, nodedown}, tokamak:next(Stream, infinity)),
    ?assertEqual({error, nodedown}, tokamak:fold(fun(_, Acc) -> Acc end, 0, Taken)),
    ?assertEqual({error, closed}, tokamak:next(Stream, infinity)),
    nothing_left(),
    stop(Setup).

in_flight(Node) ->
    maps:get(in_flight, rpc:call(Node, tokamak, stats, [])).

idle(Node) ->
    tokamak_test:wait_until(fun() -> in_flight(Node) =:= 0 end).

nothing_left() ->
    ?assertEqual({messages, []}, process_info(self(), messages)).
