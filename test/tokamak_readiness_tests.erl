%% SPDX-License-Identifier: Apache-2.0
%% When a watched descriptor is reported: level-triggered for whoever comes back, never before.
-module(tokamak_readiness_tests).

-include_lib("eunit/include/eunit.hrl").

-import(tokamak_test, [new_loop/1, raw_loop/1, ask/2, kill/1, spawn_process/1, nothing_comes/1]).

%% How long to wait for what must not come, in milliseconds.
-define(A_WHILE, 50).

readiness_test_() ->
    tokamak_test:with_application([
        {"a poller", tokamak_test:on_backends(polling())},
        {"the owner of a raw loop", tokamak_test:on_backends(draining())},
        {"a handler", tokamak_test:on_backends(handling())},
        {"from one consumer to the next", tokamak_test:on_backends(changing())},
        {"watching", tokamak_test:on_backends(watching())},
        {"hang-ups", tokamak_test:on_backends(hang_ups())}
    ]).

polling() ->
    [
        {"is told of an unread byte once each time it comes back", fun polled_once/1},
        {"is not told of what it has read", fun read_is_not_polled/1},
        {"is told again after a read that left something", fun partly_read/1},
        {"is told of data that was there before the watch", fun data_before_the_watch/1},
        {"is told of each of many descriptors once", fun many_descriptors/1},
        {"waits for the next byte, and is woken by it", fun woken_by_a_byte/1},
        {"is told of what others watch while it waits", fun watched_while_polled/1}
    ].

draining() ->
    [
        {"gets one ready for an unread byte until it comes back", fun drained_once/1},
        {"gets a ready for the next byte after a read", fun read_then_ready/1},
        {"gets one ready however many descriptors there are", fun many_make_one_ready/1}
    ].

handling() ->
    [
        {"gets one event until it has read, however much comes", fun handled_once/1},
        {"gets the next event after a read that left something", fun handled_again_after_read/1},
        {"gets the next event after reading all and new data", fun handled_again_after_data/1},
        {"gets the next event after handle_fd_event_and_reselect", fun reselected/1},
        {"has one event waiting, however often it is reselected", fun reselected_unseen/1},
        {"reads and arms in one call", fun read_and_reselected/1},
        {"gets write events after writes only", fun handled_writes/1}
    ].

changing() ->
    [
        {"a handler is told of what a poller was told of", fun poller_to_handler/1},
        {"a handler's events are its own when a poller comes back", fun poller_comes_back/1},
        {"a poller is told of what a handler left unread", fun handler_to_poller/1},
        {"a poller is told of what a dead handler left unread", fun dead_handler_to_poller/1},
        {"a handler is told of what a dead one left unread", fun dead_handler_to_handler/1},
        {"a second handler is told of what the first left unread", fun handler_to_handler/1},
        {"a change of the id takes the event along", fun the_id_changes/1},
        {"an id that changes to a handler's makes it the handler's", fun the_id_gets_handled/1},
        {"a handler whose id comes and goes is told once each time", fun the_id_comes_and_goes/1}
    ].

watching() ->
    [
        {"both directions of one descriptor have their own events", fun both_directions/1},
        {"a pending event does not come after remove_reader", fun removed_while_pending/1},
        {"a pending event does not come after close", fun closed_while_pending/1},
        {"a descriptor that is watched again is told again", fun watched_again/1},
        {"watches that come and go while nobody looks leave one event", fun come_and_go/1},
        {"a descriptor belongs to one loop at a time", fun one_loop_at_a_time/1},
        {"the loop of a descriptor may be destroyed, or killed", fun loops_end/1},
        {"what is not watched is not reselected or removed", fun not_watched/1},
        {"a duplicate of a foreign descriptor is watched like any other", fun a_duplicate/1},
        {"a datagram behind the one that was read is not lost", fun datagrams/1},
        {"readers of one descriptor at once lose nothing", fun readers_at_once/1},
        {"watches that come and go all the time lose no event", fun churn/1}
    ].

hang_ups() ->
    [
        {"the end of the data is an event each time the poller comes back", fun end_of_data/1},
        {"the end of the data is one event for a handler until it reads", fun end_of_data_handled/1},
        {"a reader that goes away is a write event", fun broken_pipe/1}
    ].

%% A poller

polled_once(Backend) ->
    Loop = new_loop(Backend),
    {Read, _Write} = unread_byte(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    [
        begin
            ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
            #{pushed := Pushed} = tokamak_loop:info(Loop),
            ok = nothing_comes(?A_WHILE),
            ?assertMatch(#{pushed := Pushed, queued := 0}, tokamak_loop:info(Loop))
        end
     || _ <- [1, 2, 3]
    ].

unread_byte() ->
    {Read, Write} = tokamak_test:pipe(),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    {Read, Write}.

read_is_not_polled(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = unread_byte(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    [
        begin
            [{1, read, undefined}] = tokamak_loop:poll(Loop, 5000),
            ?assertEqual({ok, <<"x">>}, tokamak_fd:read(Read, Max)),
            ?assertEqual([], tokamak_loop:poll(Loop, 0)),
            ?assertEqual([], tokamak_loop:poll(Loop, 10)),
            {ok, 1} = tokamak_fd:write(Write, <<"x">>)
        end
        %% A read of exactly what was there leaves open whether more is.
     || Max <- [1, 2, 100_000]
    ].

partly_read(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = tokamak_test:pipe(),
    {ok, 3} = tokamak_fd:write(Write, <<"abc">>),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    [
        begin
            ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
            ?assertEqual({ok, Byte}, tokamak_fd:read(Read, 1))
        end
     || Byte <- [<<"a">>, <<"b">>, <<"c">>]
    ],
    ?assertEqual([], tokamak_loop:poll(Loop, 10)).

data_before_the_watch(Backend) ->
    Loop = new_loop(Backend),
    {Read, _Write} = unread_byte(),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)).

many_descriptors(Backend) ->
    Loop = new_loop(Backend),
    %% More than one look at the kernel takes.
    Pipes = [{Id, tokamak_test:pipe()} || Id <- lists:seq(1, 400)],
    [ok = tokamak_loop:add_reader(Loop, Read, Id) || {Id, {Read, _}} <- Pipes],
    ?assertEqual([], tokamak_loop:poll(Loop, 10)),
    [
        begin
            Chosen = [Pipe || {Id, _} = Pipe <- Pipes, Id rem Step =:= 0],
            [{ok, 1} = tokamak_fd:write(Write, <<"x">>) || {_, {_, Write}} <- Chosen],
            Expected = [{Id, read, undefined} || {Id, _} <- Chosen],
            ?assertEqual(Expected, lists:sort(read_all(Loop, maps:from_list(Chosen), length(Chosen)))),
            ?assertEqual([], tokamak_loop:poll(Loop, 0))
        end
     || Step <- [1, 2, 3, 7]
    ].

%% Polls, reading what is reported, until so many events came.
read_all(_Loop, _Pipes, 0) ->
    [];
read_all(Loop, Pipes, Left) ->
    Events = tokamak_loop:poll(Loop, 5000),
    ?assertNotEqual([], Events),
    [
        {ok, <<"x">>} = tokamak_fd:read(Read, 10)
     || {Id, read, _} <- Events, {Read, _} <- [maps:get(Id, Pipes)]
    ],
    Events ++ read_all(Loop, Pipes, Left - length(Events)).

woken_by_a_byte(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = tokamak_test:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    Poller = spawn_process(fun() -> none end),
    [
        begin
            spawn_link(fun() ->
                Waits = fun() -> process_info(Poller, status) =:= {status, waiting} end,
                tokamak_test:wait_until(Waits),
                {ok, 1} = tokamak_fd:write(Write, <<"x">>)
            end),
            ?assertEqual(
                {[{1, read, undefined}], {ok, <<"x">>}},
                ask(Poller, fun(_) ->
                    {tokamak_loop:poll(Loop, 5000), tokamak_fd:read(Read, 10)}
                end)
            )
        end
     || _ <- lists:seq(1, 20)
    ].

watched_while_polled(Backend) ->
    Loop = new_loop(Backend),
    Seen = atomics:new(1, []),
    Poller = spawn_link(fun() -> note_what_comes(Loop, Seen) end),
    [
        begin
            {Read, Write} = unread_byte(),
            ok = tokamak_loop:add_reader(Loop, Read, Id),
            ok = wait_to_see(Seen, 1, Id),
            ok = tokamak_loop:remove_reader(Loop, Read),
            [ok = tokamak_fd:close(Fd) || Fd <- [Read, Write]]
        end
     || Id <- ids(1, 1000)
    ],
    unlink(Poller),
    ok = kill(Poller).

%% An id says in its lowest digit which watcher it is of; here it is noted what came last for each.
note_what_comes(Loop, Seen) ->
    [atomics:put(Seen, Id rem 10, Id) || {Id, read, _} <- tokamak_loop:poll(Loop, infinity)],
    note_what_comes(Loop, Seen).

ids(Watcher, Count) ->
    [10 * N + Watcher || N <- lists:seq(1, Count)].

wait_to_see(Seen, Watcher, Id) ->
    wait_to_see(Seen, Watcher, Id, erlang:monotonic_time(millisecond) + 5000).

wait_to_see(Seen, Watcher, Id, Deadline) ->
    case atomics:get(Seen, Watcher) of
        Id ->
            ok;
        _ ->
            erlang:monotonic_time(millisecond) < Deadline orelse exit({event_lost, Id}),
            erlang:yield(),
            wait_to_see(Seen, Watcher, Id, Deadline)
    end.

%% The owner of a raw loop

drained_once(Backend) ->
    Loop = raw_loop(Backend),
    {Read, _Write} = unread_byte(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    ok = ready(Loop),
    [
        begin
            ?assertEqual({empty, [{1, read, undefined}]}, tokamak_loop:drain(Loop)),
            ok = nothing_comes(?A_WHILE)
        end
     || _ <- [1, 2, 3]
    ].

ready(Loop) ->
    receive
        {tokamak, Loop, ready} -> ok
    after 5000 -> erlang:error(no_ready)
    end.

read_then_ready(Backend) ->
    Loop = raw_loop(Backend),
    {Read, Write} = unread_byte(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    [
        begin
            ok = ready(Loop),
            {empty, [{1, read, undefined}]} = tokamak_loop:drain(Loop),
            {ok, <<"x">>} = tokamak_fd:read(Read, 10),
            ok = nothing_comes(0),
            {ok, 1} = tokamak_fd:write(Write, <<"x">>)
        end
     || _ <- lists:seq(1, 50)
    ],
    ok = ready(Loop).

many_make_one_ready(Backend) ->
    Loop = raw_loop(Backend),
    Pipes = [unread_byte() || _ <- lists:seq(1, 100)],
    [ok = tokamak_loop:add_reader(Loop, Read, Id) || {Id, {Read, _}} <- lists:enumerate(Pipes)],
    ok = ready(Loop),
    ok = nothing_comes(?A_WHILE),
    Expected = [{Id, read, undefined} || {Id, _} <- lists:enumerate(Pipes)],
    ?assertEqual(Expected, lists:sort(tokamak_test:drain_all(Loop))),
    ok = nothing_comes(?A_WHILE).

%% A handler

handled_once(Backend) ->
    {_Loop, Handler, Read, Write} = handled_pipe(Backend),
    {ok, 1} = tokamak_fd:write(Write, <<"a">>),
    ok = event(Handler, read),
    [{ok, 1} = tokamak_fd:write(Write, <<"b">>) || _ <- lists:seq(1, 10)],
    ok = nothing_comes(?A_WHILE),
    ?assertEqual({ok, <<"abbbbbbbbbb">>}, tokamak_fd:read(Read, 100)),
    ok = nothing_comes(?A_WHILE).

%% A pipe whose events come to the test.
handled_pipe(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = tokamak_test:pipe(),
    Handler = tokamak_loop:register(Loop, 1, self()),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    {Loop, Handler, Read, Write}.

event(Handler, Type) ->
    receive
        {tokamak, Handler, {event, 1, Type, undefined}} -> ok
    after 5000 -> erlang:error(no_event)
    end.

handled_again_after_read(Backend) ->
    {_Loop, Handler, Read, Write} = handled_pipe(Backend),
    {ok, 3} = tokamak_fd:write(Write, <<"abc">>),
    [
        begin
            ok = event(Handler, read),
            ok = nothing_comes(5),
            ?assertEqual({ok, Byte}, tokamak_fd:read(Read, 1))
        end
     || Byte <- [<<"a">>, <<"b">>, <<"c">>]
    ],
    ok = nothing_comes(?A_WHILE).

handled_again_after_data(Backend) ->
    {_Loop, Handler, Read, Write} = handled_pipe(Backend),
    [
        begin
            {ok, 1} = tokamak_fd:write(Write, <<"x">>),
            ok = event(Handler, read),
            ?assertEqual({ok, <<"x">>}, tokamak_fd:read(Read, Max)),
            %% Any process may read, and nothing is there any more.
            ?assertEqual(again, tokamak_fd:read(Read, 1))
        end
     || Max <- [1, 10, 100_000, 1]
    ],
    ok = nothing_comes(?A_WHILE).

reselected(Backend) ->
    {_Loop, Handler, Read, Write} = handled_pipe(Backend),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    [
        begin
            ok = event(Handler, read),
            ok = nothing_comes(5),
            ?assertEqual({ok, 1}, tokamak_fd:handle_fd_event_and_reselect(Read, read))
        end
     || _ <- lists:seq(1, 10)
    ],
    ok = event(Handler, read),
    {ok, <<"x">>} = tokamak_fd:read(Read, 10),
    ?assertEqual({ok, 1}, tokamak_fd:handle_fd_event_and_reselect(Read, read)),
    ok = nothing_comes(?A_WHILE),
    {ok, 1} = tokamak_fd:write(Write, <<"y">>),
    ok = event(Handler, read).

reselected_unseen(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = tokamak_test:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    [{ok, 1} = tokamak_fd:handle_fd_event_and_reselect(Read, read) || _ <- lists:seq(1, 1000)],
    tokamak_test:wait_until(fun() -> maps:get(queued, tokamak_loop:info(Loop)) =< 1 end),
    ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
    {ok, <<"x">>} = tokamak_fd:read(Read, 10),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)),
    {ok, 1} = tokamak_fd:write(Write, <<"y">>),
    ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)).

read_and_reselected(Backend) ->
    {_Loop, Handler, Read, Write} = handled_pipe(Backend),
    {ok, 3} = tokamak_fd:write(Write, <<"abc">>),
    ok = event(Handler, read),
    ?assertEqual({ok, 1, <<"ab">>}, tokamak_fd:read_and_reselect(Read, 2)),
    ok = event(Handler, read),
    ?assertEqual({ok, 1, <<"c">>}, tokamak_fd:read_and_reselect(Read, 2)),
    ok = nothing_comes(?A_WHILE),
    ?assertEqual(again, tokamak_fd:read_and_reselect(Read, 2)),
    ok = nothing_comes(?A_WHILE),
    {ok, 1} = tokamak_fd:write(Write, <<"d">>),
    ok = event(Handler, read),
    ?assertEqual({ok, 1, <<"d">>}, tokamak_fd:read_and_reselect(Read, 1)),
    ok = tokamak_fd:close(Write),
    ok = event(Handler, read),
    ?assertEqual(eof, tokamak_fd:read_and_reselect(Read, 1)).

handled_writes(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = tokamak_test:pipe(),
    Handler = tokamak_loop:register(Loop, 1, self()),
    ok = tokamak_loop:add_writer(Loop, Write, 1),
    ok = event(Handler, write),
    ok = nothing_comes(?A_WHILE),
    %% It can be written still.
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    ok = event(Handler, write),
    ok = fill(Write),
    ok = nothing_comes(?A_WHILE),
    {ok, _} = tokamak_fd:read(Read, 200_000),
    ok = event(Handler, write),
    ok = nothing_comes(?A_WHILE).

fill(Write) ->
    case tokamak_fd:write(Write, binary:copy(<<"x">>, 65536)) of
        {ok, _} -> fill(Write);
        again -> flush_events()
    end.

%% Each of those writes made the handler come back.
flush_events() ->
    receive
        {tokamak, _, {event, 1, write, undefined}} -> flush_events()
    after ?A_WHILE -> ok
    end.

%% From one consumer to the next

poller_to_handler(Backend) ->
    Loop = new_loop(Backend),
    {Read, _Write} = unread_byte(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    [{1, read, undefined}] = tokamak_loop:poll(Loop, 5000),
    Handler = tokamak_loop:register(Loop, 1, self()),
    ok = event(Handler, read),
    {ok, <<"x">>} = tokamak_fd:read(Read, 10),
    ok = nothing_comes(?A_WHILE).

poller_comes_back(Backend) ->
    Loop = new_loop(Backend),
    {Read, _Write} = unread_byte(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    [{1, read, undefined}] = tokamak_loop:poll(Loop, 5000),
    Handler = tokamak_loop:register(Loop, 1, self()),
    [?assertEqual([], tokamak_loop:poll(Loop, 10)) || _ <- [1, 2, 3]],
    ok = event(Handler, read),
    ok = nothing_comes(?A_WHILE),
    %% It is not the poller's to come back for.
    [?assertEqual([], tokamak_loop:poll(Loop, 10)) || _ <- [1, 2, 3]],
    ok = nothing_comes(?A_WHILE).

handler_to_poller(Backend) ->
    {Loop, Handler, _Read, Write} = handled_pipe(Backend),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    ok = event(Handler, read),
    ok = tokamak_loop:unregister(Loop, 1),
    [?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)) || _ <- [1, 2, 3]].

dead_handler_to_poller(Backend) ->
    {Loop, _Read} = left_by_a_dead_handler(Backend),
    [?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)) || _ <- [1, 2, 3]].

dead_handler_to_handler(Backend) ->
    {Loop, Read} = left_by_a_dead_handler(Backend),
    Handler = tokamak_loop:register(Loop, 1, self()),
    ok = event(Handler, read),
    {ok, <<"x">>} = tokamak_fd:read(Read, 10),
    ok = nothing_comes(?A_WHILE).

left_by_a_dead_handler(Backend) ->
    Loop = new_loop(Backend),
    {Read, _Write} = unread_byte(),
    Handler = spawn_process(fun() -> none end),
    _ = tokamak_loop:register(Loop, 1, Handler),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    tokamak_test:wait_until(fun() -> process_info(Handler, message_queue_len) =:= {message_queue_len, 1} end),
    ok = kill(Handler),
    tokamak_test:wait_until(fun() -> maps:get(handlers, tokamak_loop:info(Loop)) =:= 0 end),
    {Loop, Read}.

handler_to_handler(Backend) ->
    {Loop, First, Read, Write} = handled_pipe(Backend),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    ok = event(First, read),
    Second = tokamak_loop:register(Loop, 1, self()),
    receive
        {tokamak, First, closed} -> ok
    end,
    ok = event(Second, read),
    {ok, <<"x">>} = tokamak_fd:read(Read, 10),
    ok = nothing_comes(?A_WHILE).

the_id_changes(Backend) ->
    Loop = new_loop(Backend),
    {Read, _Write} = unread_byte(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    ok = tokamak_loop:add_reader(Loop, Read, 2),
    ?assertEqual([{2, read, undefined}], tokamak_loop:poll(Loop, 5000)),
    ok = tokamak_loop:add_reader(Loop, Read, 3),
    ?assertEqual([{3, read, undefined}], tokamak_loop:poll(Loop, 5000)),
    ?assertMatch(#{readers := 1}, tokamak_loop:info(Loop)).

the_id_gets_handled(Backend) ->
    Loop = new_loop(Backend),
    {Read, _Write} = unread_byte(),
    Handler = tokamak_loop:register(Loop, 1, self()),
    ok = tokamak_loop:add_reader(Loop, Read, 2),
    [{2, read, undefined}] = tokamak_loop:poll(Loop, 5000),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    ok = event(Handler, read),
    ?assertEqual([], tokamak_loop:poll(Loop, 10)),
    {ok, <<"x">>} = tokamak_fd:read(Read, 10),
    ok = nothing_comes(?A_WHILE).

%% The events of another id have the loop's process at work while the id changes.
the_id_comes_and_goes(Backend) ->
    Loop = new_loop(Backend),
    {Read, _Write} = unread_byte(),
    Handler = tokamak_loop:register(Loop, 1, self()),
    Busy = spawn_link(fun() -> post_to_oneself(Loop, 3) end),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    ok = event(Handler, read),
    tokamak_test:repeat(20_000, fun() ->
        ok = tokamak_loop:add_reader(Loop, Read, 2),
        ok = tokamak_loop:add_reader(Loop, Read, 1),
        %% When this one is there, nothing else is on its way.
        ok = tokamak_loop:post(Loop, 1, user, last),
        ?assertEqual([read, user], next_types(Handler, 2))
    end),
    unlink(Busy),
    ok = kill(Busy).

%% Registers for an id and posts it events, some at a time.
post_to_oneself(Loop, Id) ->
    post_to_oneself(Loop, Id, tokamak_loop:register(Loop, Id, self())).

post_to_oneself(Loop, Id, Handler) ->
    _ = [ok = tokamak_loop:post(Loop, Id, user, x) || _ <- lists:seq(1, 10)],
    _ = next_types(Handler, 10),
    post_to_oneself(Loop, Id, Handler).

next_types(_Handler, 0) ->
    [];
next_types(Handler, Count) ->
    receive
        {tokamak, Handler, {event, _Id, Type, _Data}} -> [Type | next_types(Handler, Count - 1)]
    after 5000 -> erlang:error(no_event)
    end.

%% Watching

both_directions(Backend) ->
    tokamak_test:with_directory(fun(Directory) ->
        Path = filename:join(Directory, "fifo"),
        "" = os:cmd("mkfifo " ++ Path),
        {ok, Fd} = tokamak_fd:open(Path, [read, write]),
        Loop = new_loop(Backend),
        ok = tokamak_loop:add_reader(Loop, Fd, 1),
        ok = tokamak_loop:add_writer(Loop, Fd, 2),
        ?assertMatch(#{readers := 1, writers := 1}, tokamak_loop:info(Loop)),
        ?assertEqual([{2, write, undefined}], tokamak_loop:poll(Loop, 5000)),
        {ok, 1} = tokamak_fd:write(Fd, <<"x">>),
        Both = [{1, read, undefined}, {2, write, undefined}],
        ?assertEqual(Both, poll_both(Loop)),
        ok = tokamak_loop:remove_writer(Loop, Fd),
        ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
        ok = tokamak_loop:add_writer(Loop, Fd, 3),
        ok = tokamak_loop:remove_reader(Loop, Fd),
        [?assertEqual([{3, write, undefined}], tokamak_loop:poll(Loop, 5000)) || _ <- [1, 2]],
        {ok, <<"x">>} = tokamak_fd:read(Fd, 10),
        ok = tokamak_loop:add_reader(Loop, Fd, 4),
        ?assertEqual([{3, write, undefined}], tokamak_loop:poll(Loop, 5000)),
        ?assertMatch(#{readers := 1, writers := 1}, tokamak_loop:info(Loop))
    end).

%% Both are ready, but one may be seen before the other.
poll_both(Loop) ->
    case lists:sort(tokamak_loop:poll(Loop, 5000)) of
        [_, _] = Both -> Both;
        [_] -> poll_both(Loop)
    end.

removed_while_pending(Backend) ->
    {Loop, Read, _Write} = pending(Backend),
    ok = tokamak_loop:remove_reader(Loop, Read),
    ?assertEqual([], tokamak_loop:poll(Loop, ?A_WHILE)),
    ?assertMatch(#{readers := 0, queued := 0}, tokamak_loop:info(Loop)).

%% A loop that has the event of an unread byte in its queue, or would have if it were asked.
pending(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = unread_byte(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    case Backend of
        select ->
            tokamak_test:wait_until(fun() -> maps:get(queued, tokamak_loop:info(Loop)) =:= 1 end);
        native ->
            %% Only a consumer looks: the loop's process is one as long as there is a handler.
            _ = tokamak_loop:register(Loop, 2, self()),
            tokamak_test:wait_until(fun() -> maps:get(queued, tokamak_loop:info(Loop)) =:= 1 end),
            ok = tokamak_loop:unregister(Loop, 2)
    end,
    {Loop, Read, Write}.

closed_while_pending(Backend) ->
    {Loop, Read, _Write} = pending(Backend),
    ok = tokamak_fd:close(Read),
    ?assertEqual([], tokamak_loop:poll(Loop, ?A_WHILE)).

watched_again(Backend) ->
    Loop = new_loop(Backend),
    {Read, _Write} = unread_byte(),
    [
        begin
            ok = tokamak_loop:add_reader(Loop, Read, Id),
            ?assertEqual([{Id, read, undefined}], tokamak_loop:poll(Loop, 5000)),
            ok = tokamak_loop:remove_reader(Loop, Read),
            ?assertEqual([], tokamak_loop:poll(Loop, 0))
        end
     || Id <- lists:seq(1, 50)
    ].

come_and_go(Backend) ->
    Loop = new_loop(#{backend => Backend, max_queue => 10}),
    %% The loop's process takes what happens, so that it is seen without a poll.
    Ref = tokamak_loop:register(Loop, 2, self()),
    {Read, _Write} = unread_byte(),
    [
        begin
            ok = tokamak_loop:add_reader(Loop, Read, 1),
            tokamak_test:wait_until(fun() -> happened(Loop) =:= Times end),
            ok = tokamak_loop:remove_reader(Loop, Read)
        end
     || Times <- lists:seq(1, 20)
    ],
    ?assertMatch(#{queued := 1}, tokamak_loop:info(Loop)),
    ?assertEqual(ok, tokamak_loop:post(Loop, 3, user, here)),
    ?assertEqual([{3, user, here}], tokamak_loop:poll(Loop, 5000)),
    ok = tokamak_loop:add_reader(Loop, Read, 2),
    receive {tokamak, Ref, Event} -> ?assertEqual({event, 2, read, undefined}, Event) end.

%% The events that were queued or added to one that was.
happened(Loop) ->
    #{queued := Queued, coalesced := Coalesced} = tokamak_loop:info(Loop),
    Queued + Coalesced.

one_loop_at_a_time(Backend) ->
    Others = [new_loop(native), new_loop(select)],
    Loop = new_loop(Backend),
    {Read, _Write} = unread_byte(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    [
        ?assertEqual({error, busy}, Watch(Other, Read, 2))
     || Other <- Others, Watch <- [fun tokamak_loop:add_reader/3, fun tokamak_loop:add_writer/3]
    ],
    [?assertEqual({error, not_watched}, tokamak_loop:remove_reader(Other, Read)) || Other <- Others],
    ok = tokamak_loop:remove_reader(Loop, Read),
    [
        begin
            ok = tokamak_loop:add_reader(Other, Read, 2),
            ?assertEqual([{2, read, undefined}], tokamak_loop:poll(Other, 5000)),
            ok = tokamak_loop:remove_reader(Other, Read)
        end
     || Other <- Others
    ],
    ?assertEqual([], tokamak_loop:poll(Loop, 0)).

loops_end(Backend) ->
    {Read, _Write} = unread_byte(),
    Destroy = fun(Loop) -> tokamak_loop:destroy(Loop) end,
    Kill = fun(Loop) ->
        #{owner := Process} = tokamak_loop:info(Loop),
        ok = tokamak_test:quietly(fun() -> kill(Process) end),
        tokamak_test:wait_for({error, closed}, fun() -> tokamak_loop:info(Loop) end)
    end,
    [
        begin
            Loop = new_loop(Backend),
            ok = tokamak_loop:add_reader(Loop, Read, 1),
            [{1, read, undefined}] = tokamak_loop:poll(Loop, 5000),
            ok = End(Loop)
        end
     || End <- [Destroy, Kill, Destroy, Kill]
    ],
    [
        begin
            Loop = new_loop(Other),
            ok = tokamak_loop:add_reader(Loop, Read, 1),
            ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
            ok = tokamak_loop:destroy(Loop)
        end
     || Other <- [native, select]
    ],
    ?assertEqual({ok, <<"x">>}, tokamak_fd:read(Read, 10)).

not_watched(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = unread_byte(),
    ?assertEqual({error, not_watched}, tokamak_loop:remove_reader(Loop, Read)),
    ?assertEqual({error, not_watched}, tokamak_fd:handle_fd_event_and_reselect(Read, read)),
    ?assertEqual({error, not_watched}, tokamak_fd:read_and_reselect(Read, 10)),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    ?assertEqual({error, not_watched}, tokamak_fd:handle_fd_event_and_reselect(Read, write)),
    ?assertEqual({error, not_watched}, tokamak_loop:remove_writer(Loop, Read)),
    ok = tokamak_loop:remove_reader(Loop, Read),
    ?assertEqual({error, not_watched}, tokamak_loop:remove_reader(Loop, Read)),
    ?assertEqual({error, not_watched}, tokamak_loop:remove_writer(Loop, Write)),
    ?assertEqual({ok, <<"x">>}, tokamak_fd:read(Read, 10)).

a_duplicate(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = tokamak_test_nif:pipe(),
    {ok, ReadFd} = tokamak_fd:from_integer(Read),
    {ok, WriteFd} = tokamak_fd:from_integer(Write),
    ok = tokamak_loop:add_reader(Loop, ReadFd, 1),
    ok = tokamak_loop:add_writer(Loop, WriteFd, 2),
    ?assertEqual([{2, write, undefined}], tokamak_loop:poll(Loop, 5000)),
    ok = tokamak_loop:remove_writer(Loop, WriteFd),
    [
        begin
            1 = tokamak_test_nif:write(Write, <<"x">>),
            ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
            ?assertEqual({ok, <<"x">>}, tokamak_fd:read(ReadFd, 10)),
            ?assertEqual([], tokamak_loop:poll(Loop, 0))
        end
     || _ <- [1, 2, 3]
    ],
    %% Closing one of several names of a pipe ends its own watch only.
    {ok, Twin} = tokamak_fd:from_integer(Read),
    ok = tokamak_loop:add_reader(Loop, Twin, 3),
    ok = tokamak_fd:close(ReadFd),
    1 = tokamak_test_nif:write(Write, <<"x">>),
    ?assertEqual([{3, read, undefined}], tokamak_loop:poll(Loop, 5000)),
    [ok = tokamak_test_nif:close(N) || N <- [Read, Write]].

datagrams(Backend) ->
    Loop = new_loop(Backend),
    {Left, Right} = tokamak_test_nif:datagrams(),
    {ok, Fd} = tokamak_fd:from_integer(Left),
    ok = tokamak_loop:add_reader(Loop, Fd, 1),
    [1 = tokamak_test_nif:write(Right, Data) || Data <- [<<"a">>, <<"b">>, <<"c">>]],
    [
        begin
            ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
            ?assertEqual({ok, Data}, tokamak_fd:read(Fd, 100))
        end
     || Data <- [<<"a">>, <<"b">>, <<"c">>]
    ],
    ?assertEqual([], tokamak_loop:poll(Loop, 10)),
    [ok = tokamak_test_nif:close(N) || N <- [Left, Right]].

readers_at_once(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = tokamak_test:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    Count = atomics:new(1, []),
    Readers = [spawn_link(fun() -> read_what_comes(Read, Count) end) || _ <- [1, 2, 3]],
    Bytes = 20_000,
    Writer = spawn_link(fun() -> write_bytes(Write, Bytes) end),
    ok = poll_and_read(Loop, Read, Count, Bytes),
    ok = tokamak_test:wait_for_end(Writer),
    [
        begin
            unlink(Reader),
            ok = kill(Reader)
        end
     || Reader <- Readers
    ].

write_bytes(_Write, 0) ->
    ok;
write_bytes(Write, Left) ->
    case tokamak_fd:write(Write, <<"x">>) of
        {ok, 1} -> write_bytes(Write, Left - 1);
        again -> write_bytes(Write, Left)
    end.

read_what_comes(Read, Count) ->
    _ = count_read(Read, Count),
    read_what_comes(Read, Count).

count_read(Read, Count) ->
    case tokamak_fd:read(Read, 3) of
        {ok, Data} -> atomics:add(Count, 1, byte_size(Data));
        again -> erlang:yield()
    end.

poll_and_read(Loop, Read, Count, Bytes) ->
    case atomics:get(Count, 1) of
        Bytes ->
            ok;
        _ ->
            _ = tokamak_loop:poll(Loop, 1),
            _ = count_read(Read, Count),
            poll_and_read(Loop, Read, Count, Bytes)
    end.

churn(Backend) ->
    Loop = new_loop(Backend),
    Seen = atomics:new(4, []),
    Poller = spawn_link(fun() -> note_what_comes(Loop, Seen) end),
    Watchers = [
        spawn_monitor(fun() -> come_and_go(Loop, Seen, Watcher, 200) end)
     || Watcher <- [1, 2, 3, 4]
    ],
    [
        receive
            {'DOWN', Monitor, process, Watcher, Reason} -> ?assertEqual(normal, Reason)
        end
     || {Watcher, Monitor} <- Watchers
    ],
    unlink(Poller),
    ok = kill(Poller),
    tokamak_test:wait_until(fun() -> maps:get(readers, tokamak_loop:info(Loop)) =:= 0 end).

come_and_go(Loop, Seen, Watcher, Rounds) ->
    {Read, _Write} = unread_byte(),
    [
        begin
            ok = tokamak_loop:add_reader(Loop, Read, Id),
            ok = wait_to_see(Seen, Watcher, Id),
            ok = tokamak_loop:remove_reader(Loop, Read)
        end
     || Id <- ids(Watcher, Rounds)
    ].

%% Hang-ups

end_of_data(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = unread_byte(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    ok = tokamak_fd:close(Write),
    [{1, read, undefined}] = tokamak_loop:poll(Loop, 5000),
    {ok, <<"x">>} = tokamak_fd:read(Read, 10),
    [
        begin
            ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
            ?assertEqual(eof, tokamak_fd:read(Read, 10))
        end
     || _ <- [1, 2, 3]
    ],
    ok = tokamak_loop:remove_reader(Loop, Read),
    ?assertEqual([], tokamak_loop:poll(Loop, 10)).

end_of_data_handled(Backend) ->
    {_Loop, Handler, Read, Write} = handled_pipe(Backend),
    ok = tokamak_fd:close(Write),
    ok = event(Handler, read),
    ok = nothing_comes(?A_WHILE),
    ?assertEqual(eof, tokamak_fd:read(Read, 10)),
    ok = event(Handler, read).

broken_pipe(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = tokamak_test:pipe(),
    Full = fun Fill() ->
        case tokamak_fd:write(Write, binary:copy(<<"x">>, 65536)) of
            {ok, _} -> Fill();
            again -> ok
        end
    end,
    ok = Full(),
    ok = tokamak_loop:add_writer(Loop, Write, 1),
    ?assertEqual([], tokamak_loop:poll(Loop, ?A_WHILE)),
    ok = tokamak_fd:close(Read),
    ?assertEqual([{1, write, undefined}], tokamak_loop:poll(Loop, 5000)),
    ?assertEqual({error, epipe}, tokamak_fd:write(Write, <<"x">>)).
