%% SPDX-License-Identifier: Apache-2.0
%% Handlers: processes that get the events of one callback id as messages.
-module(tokamak_handler_tests).

-include_lib("eunit/include/eunit.hrl").

-import(tokamak_test, [new_loop/1, ask/2, kill/1, collect/2, spawn_process/1, nothing_comes/1]).

-define(A_WHILE, 30).
%% More events than a handler is sent before its mailbox is looked at.
-define(MANY, 5000).

handler_test_() ->
    tokamak_test:with_application([
        {"registering", tokamak_test:on_backends(registering())},
        {"unregistering", tokamak_test:on_backends(unregistering())},
        {"a handler that lags", tokamak_test:cases(lagging())},
        {"the end", tokamak_test:on_backends(ending())}
    ]).

registering() ->
    [
        {"events before it are the handler's", fun events_before/1},
        {"events between a poll and it are the handler's, in order", fun events_after_a_poll/1},
        {"events after it are the handler's, in order", fun events_after/1},
        {"while events come, again and again, loses none of them", fun events_during/1},
        {"other ids are the poller's, also of one that waits", fun other_ids_are_polled/1},
        {"a process has a reference for each of its ids", fun many_ids/1},
        {"timers and descriptors come as messages", fun all_sources/1},
        {"a second handler takes over, the first gets closed", fun a_replaced_handler_is_closed/1},
        {"a process may take over from itself", fun taking_over_from_oneself/1},
        {"a handler may be a dead process", fun a_dead_handler/1},
        {"a thousand handlers get what is theirs", fun a_thousand_handlers/1}
    ].

unregistering() ->
    [
        {"leaves no message in the handler's mailbox", fun unregister_flushes/1},
        {"makes further events the poller's", fun further_events_are_polled/1},
        {"an id that has no handler is no error", fun unregister_twice/1},
        {"by another process stops the messages", fun unregister_by_other/1}
    ].

lagging() ->
    [
        {"holds back its own events natively, and they all come in order", fun its_events_wait/0},
        {"does not disturb other handlers and pollers", fun others_are_undisturbed/0},
        {"has posts refused at max_queue, and nothing is lost", fun posts_are_refused/0},
        {"does not hold up timers of others when the loop is full", fun timers_of_others/0},
        {"and is replaced, leaves what waits for it to the next", fun a_lagging_handler_is_replaced/0},
        {"and dies, leaves room for others", fun a_lagging_handler_dies/0},
        {"and is unregistered, leaves room for others", fun a_lagging_handler_leaves/0}
    ].

ending() ->
    [
        {"a dead handler's further events are polled", fun a_killed_handler/1},
        {"closed is the last message of a destroyed loop", fun closed_by_destroy/1},
        {"closed is the last message of a killed loop", fun closed_by_kill/1}
    ].

%% Registering

events_before(Backend) ->
    Loop = new_loop(Backend),
    [ok = tokamak_loop:post(Loop, Id, user, N) || N <- lists:seq(1, 10), Id <- [1, 2]],
    Reference = tokamak_loop:register(Loop, 1, self()),
    ?assertEqual([{1, user, N} || N <- lists:seq(1, 10)], handled(Reference, 10)),
    ?assertEqual([{2, user, N} || N <- lists:seq(1, 10)], collect(Loop, 10)),
    ok = nothing_comes(0).

events_after_a_poll(Backend) ->
    Loop = new_loop(Backend),
    ok = tokamak_loop:post(Loop, 6, user, first),
    ?assertEqual([{6, user, first}], tokamak_loop:poll(Loop, 5000)),
    ok = tokamak_loop:post(Loop, 2, user, second),
    {ok, _, _} = tokamak_fd:pipe(),
    ok = tokamak_loop:post(Loop, 2, user, third),
    Reference = tokamak_loop:register(Loop, 2, self()),
    ok = tokamak_loop:post(Loop, 2, user, fourth),
    ?assertEqual([{2, user, Data} || Data <- [second, third, fourth]], handled(Reference, 3)),
    ok = nothing_comes(0).

events_after(Backend) ->
    Loop = new_loop(Backend),
    Reference = tokamak_loop:register(Loop, 1, self()),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, ?MANY)],
    ?assertEqual([{1, user, N} || N <- lists:seq(1, ?MANY)], handled(Reference, ?MANY)),
    ok = nothing_comes(0),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)).

handled(_Reference, 0) ->
    [];
handled(Reference, Count) ->
    receive
        {tokamak, Reference, {event, Id, Type, Data}} ->
            [{Id, Type, Data} | handled(Reference, Count - 1)]
    after 5000 -> erlang:error({events_missing, Count})
    end.

events_during(Backend) ->
    Loop = new_loop(#{backend => Backend, max_queue => 1000}),
    Count = 20_000,
    Test = self(),
    Poster = spawn_link(fun() ->
        [post_until_accepted(Loop, N) || N <- lists:seq(1, Count)]
    end),
    Poller = spawn_link(fun() -> Test ! {self(), poll_until_stopped(Loop, [])} end),
    Handled = register_again_and_again(Loop, Poster, []),
    Poller ! stop,
    Polled =
        receive
            {Poller, Events} -> Events
        after 10_000 -> erlang:error(poller_did_not_stop)
        end,
    ?assertEqual(lists:seq(1, Count), lists:sort(Polled ++ Handled)).

%% Takes the id over from itself all the time, and takes what comes with every reference.
register_again_and_again(Loop, Poster, Handled) ->
    _ = tokamak_loop:register(Loop, 1, self()),
    Some = Handled ++ receive_events(),
    case is_process_alive(Poster) orelse maps:get(queued, tokamak_loop:info(Loop)) > 0 of
        true -> register_again_and_again(Loop, Poster, Some);
        false -> Some ++ receive_events()
    end.

receive_events() ->
    receive
        {tokamak, _, {event, 1, user, N}} -> [N | receive_events()]
    after 0 -> []
    end.

poll_until_stopped(Loop, Polled) ->
    receive
        stop -> Polled
    after 0 -> poll_until_stopped(Loop, [N || {1, user, N} <- tokamak_loop:poll(Loop, 5)] ++ Polled)
    end.

post_until_accepted(Loop, N) ->
    case tokamak_loop:post(Loop, 1, user, N) of
        ok ->
            ok;
        {error, overloaded} ->
            erlang:yield(),
            post_until_accepted(Loop, N)
    end.

other_ids_are_polled(Backend) ->
    Loop = new_loop(Backend),
    Reference = tokamak_loop:register(Loop, 1, self()),
    Poller = spawn_process(fun() -> none end),
    Post = fun(Id, Data) -> ok = tokamak_loop:post(Loop, Id, user, Data) end,
    Post(2, before),
    ?assertEqual([{2, user, before}], ask(Poller, fun(_) -> tokamak_loop:poll(Loop, 5000) end)),
    spawn_link(fun() ->
        tokamak_test:wait_until(fun() -> process_info(Poller, status) =:= {status, waiting} end),
        Post(1, mine),
        Post(2, theirs)
    end),
    ?assertEqual([{2, user, theirs}], ask(Poller, fun(_) -> tokamak_loop:poll(Loop, 5000) end)),
    ?assertEqual([{1, user, mine}], handled(Reference, 1)),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)).

many_ids(Backend) ->
    Loop = new_loop(Backend),
    References = [{Id, tokamak_loop:register(Loop, Id, self())} || Id <- lists:seq(1, 10)],
    ?assertMatch(#{handlers := 10}, tokamak_loop:info(Loop)),
    [ok = tokamak_loop:post(Loop, Id, user, N) || N <- [1, 2], {Id, _} <- References],
    [?assertEqual([{Id, user, 1}, {Id, user, 2}], handled(Reference, 2)) || {Id, Reference} <- References],
    ok = tokamak_loop:unregister(Loop, 1),
    ?assertMatch(#{handlers := 9}, tokamak_loop:info(Loop)).

all_sources(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = tokamak_test:pipe(),
    Reference = tokamak_loop:register(Loop, 1, self()),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    ?assertEqual([{1, read, undefined}], handled(Reference, 1)),
    Timer = tokamak_loop:start_timer(Loop, 1, 1),
    ?assertEqual([{1, timer, Timer}], handled(Reference, 1)).

a_replaced_handler_is_closed(Backend) ->
    Loop = new_loop(Backend),
    First = tokamak_loop:register(Loop, 1, self()),
    ok = tokamak_loop:post(Loop, 1, user, first),
    [{1, user, first}] = handled(First, 1),
    Second = spawn_process(fun() -> none end),
    Reference = tokamak_loop:register(Loop, 1, Second),
    receive
        {tokamak, First, closed} -> ok
    after 5000 -> erlang:error(not_closed)
    end,
    ok = tokamak_loop:post(Loop, 1, user, second),
    ?assertEqual([{1, user, second}], ask(Second, fun(_) -> handled(Reference, 1) end)),
    ok = nothing_comes(?A_WHILE),
    ?assertMatch(#{handlers := 1}, tokamak_loop:info(Loop)).

taking_over_from_oneself(Backend) ->
    Loop = new_loop(Backend),
    First = tokamak_loop:register(Loop, 1, self()),
    Second = tokamak_loop:register(Loop, 1, self()),
    ok = tokamak_loop:post(Loop, 1, user, x),
    ?assertEqual([{1, user, x}], handled(Second, 1)),
    ?assertEqual([{tokamak, First, closed}], tokamak_test:mailbox()).

a_dead_handler(Backend) ->
    Loop = new_loop(Backend),
    Dead = spawn_process(fun() -> none end),
    ok = kill(Dead),
    ?assert(is_reference(tokamak_loop:register(Loop, 1, Dead))),
    tokamak_test:wait_until(fun() -> maps:get(handlers, tokamak_loop:info(Loop)) =:= 0 end),
    ok = tokamak_loop:post(Loop, 1, user, x),
    ?assertEqual([{1, user, x}], tokamak_loop:poll(Loop, 5000)).

a_thousand_handlers(Backend) ->
    Loop = new_loop(Backend),
    Handlers = [
        begin
            Handler = spawn_process(fun() -> none end),
            {Id, Handler, tokamak_loop:register(Loop, Id, Handler)}
        end
     || Id <- lists:seq(1, 1000)
    ],
    [ok = tokamak_loop:post(Loop, Id, user, N) || N <- [1, 2, 3], {Id, _, _} <- Handlers],
    [
        ?assertEqual([{Id, user, N} || N <- [1, 2, 3]], ask(Handler, fun(_) -> handled(Reference, 3) end))
     || {Id, Handler, Reference} <- Handlers
    ],
    [ok = kill(Handler) || {_, Handler, _} <- Handlers],
    tokamak_test:wait_until(fun() -> maps:get(handlers, tokamak_loop:info(Loop)) =:= 0 end).

%% Unregistering

unregister_flushes(Backend) ->
    Loop = new_loop(Backend),
    tokamak_test:repeat(50, fun() ->
        _ = tokamak_loop:register(Loop, 1, self()),
        [ok = tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, 20)],
        ok = tokamak_loop:unregister(Loop, 1),
        ?assertEqual([], tokamak_test:mailbox())
    end),
    ok = nothing_comes(?A_WHILE).

further_events_are_polled(Backend) ->
    Loop = new_loop(Backend),
    Reference = tokamak_loop:register(Loop, 1, self()),
    ok = tokamak_loop:post(Loop, 1, user, handled),
    [_] = handled(Reference, 1),
    ok = tokamak_loop:unregister(Loop, 1),
    ok = tokamak_loop:post(Loop, 1, user, polled),
    ?assertEqual([{1, user, polled}], tokamak_loop:poll(Loop, 5000)).

unregister_twice(Backend) ->
    Loop = new_loop(Backend),
    _ = tokamak_loop:register(Loop, 1, self()),
    [?assertEqual(ok, tokamak_loop:unregister(Loop, Id)) || Id <- [1, 1, 2]].

unregister_by_other(Backend) ->
    Loop = new_loop(Backend),
    Handler = spawn_process(fun() -> none end),
    _ = tokamak_loop:register(Loop, 1, Handler),
    ok = tokamak_loop:unregister(Loop, 1),
    ok = tokamak_loop:post(Loop, 1, user, x),
    ?assertEqual([{1, user, x}], tokamak_loop:poll(Loop, 5000)),
    ?assertEqual([], ask(Handler, fun(_) -> tokamak_test:mailbox() end)).

%% A handler that lags

its_events_wait() ->
    Loop = new_loop(#{max_queue => 100_000}),
    Handler = idle_handler(),
    Reference = tokamak_loop:register(Loop, 1, Handler),
    Count = 50_000,
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, Count)],
    tokamak_test:settled(Loop),
    %% Its mailbox has at most what it is sent before it is looked at, twice.
    ?assert(tokamak_test:mailbox_length(Handler) =< 2100),
    ?assertEqual(Count, tokamak_test:mailbox_length(Handler) + maps:get(queued, tokamak_loop:info(Loop))),
    Handler ! {take, self(), Reference, Count},
    ?assertEqual([{1, user, N} || N <- lists:seq(1, Count)], taken(Handler)),
    tokamak_test:wait_until(fun() -> maps:get(queued, tokamak_loop:info(Loop)) =:= 0 end).

%% A handler that looks at nothing until it is told to take so many events.
idle_handler() ->
    spawn_link(fun() ->
        receive
            {take, From, Reference, Count} -> From ! {self(), handled(Reference, Count)}
        end
    end).

taken(Handler) ->
    receive
        {Handler, Events} -> Events
    after 20_000 -> erlang:error(handler_got_not_enough)
    end.

others_are_undisturbed() ->
    Loop = new_loop(#{max_queue => 20_000}),
    Lagging = idle_handler(),
    _ = tokamak_loop:register(Loop, 1, Lagging),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, 10_000)],
    Reference = tokamak_loop:register(Loop, 2, self()),
    [ok = tokamak_loop:post(Loop, Id, user, N) || N <- lists:seq(1, 2000), Id <- [2, 3]],
    ?assertEqual([{2, user, N} || N <- lists:seq(1, 2000)], handled(Reference, 2000)),
    ?assertEqual([{3, user, N} || N <- lists:seq(1, 2000)], collect(Loop, 2000)),
    ok = end_of(Lagging).

posts_are_refused() ->
    Loop = new_loop(#{max_queue => 5000}),
    Handler = idle_handler(),
    Reference = tokamak_loop:register(Loop, 1, Handler),
    Accepted = post_until_refused(Loop, 1),
    %% The bound, and what was delivered meanwhile.
    ?assert(Accepted >= 5000),
    ?assert(Accepted =< 5000 + 2100),
    tokamak_test:settled(Loop),
    More = post_until_refused(Loop, Accepted + 1),
    ?assert(More =< 5000 + 2100),
    ?assertMatch(#{queued := 5000}, tokamak_loop:info(Loop)),
    Handler ! {take, self(), Reference, More},
    ?assertEqual([{1, user, N} || N <- lists:seq(1, More)], taken(Handler)),
    tokamak_test:wait_for(ok, fun() -> tokamak_loop:post(Loop, 1, user, again) end).

post_until_refused(Loop, N) ->
    case tokamak_loop:post(Loop, 1, user, N) of
        ok -> post_until_refused(Loop, N + 1);
        {error, overloaded} -> N - 1
    end.

timers_of_others() ->
    Loop = new_loop(#{max_queue => 5000}),
    Lagging = idle_handler(),
    _ = tokamak_loop:register(Loop, 1, Lagging),
    Reference = tokamak_loop:register(Loop, 2, self()),
    Timers = [tokamak_loop:start_timer(Loop, 100, 2) || _ <- lists:seq(1, 100)],
    _ = post_until_refused(Loop, 1),
    ?assertEqual([{2, timer, Timer} || Timer <- Timers], handled(Reference, 100)),
    ok = end_of(Lagging).

end_of(Handler) ->
    unlink(Handler),
    kill(Handler).

a_lagging_handler_is_replaced() ->
    Loop = new_loop(#{max_queue => 20_000}),
    Lagging = idle_handler(),
    First = tokamak_loop:register(Loop, 1, Lagging),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, 10_000)],
    tokamak_test:settled(Loop),
    Sent = tokamak_test:mailbox_length(Lagging),
    Second = tokamak_loop:register(Loop, 1, self()),
    ok = tokamak_loop:post(Loop, 1, user, 10_001),
    ?assertEqual([{1, user, N} || N <- lists:seq(Sent + 1, 10_001)], handled(Second, 10_001 - Sent)),
    Lagging ! {take, self(), First, Sent},
    ?assertEqual([{1, user, N} || N <- lists:seq(1, Sent)], taken(Lagging)).

a_lagging_handler_dies() ->
    Loop = new_loop(#{max_queue => 5000}),
    Lagging = idle_handler(),
    _ = tokamak_loop:register(Loop, 1, Lagging),
    _ = post_until_refused(Loop, 1),
    ok = end_of(Lagging),
    room_again(Loop).

a_lagging_handler_leaves() ->
    Loop = new_loop(#{max_queue => 5000}),
    Lagging = idle_handler(),
    _ = tokamak_loop:register(Loop, 1, Lagging),
    _ = post_until_refused(Loop, 1),
    ok = tokamak_loop:unregister(Loop, 1),
    room_again(Loop),
    ok = end_of(Lagging).

%% What was held back for the handler is gone, what came after is polled. There may be room, and the poll may be over,
%% before the loop's process has heard of the end of its handler.
room_again(Loop) ->
    tokamak_test:wait_for(ok, fun() -> tokamak_loop:post(Loop, 2, user, last) end),
    _ = poll_to(Loop, {2, user, last}),
    tokamak_test:wait_for([0, 0], fun() ->
        #{queued := Queued, handlers := Handlers} = tokamak_loop:info(Loop),
        [Queued, Handlers]
    end).

poll_to(Loop, Last) ->
    Events = tokamak_loop:poll(Loop, 5000),
    ?assertNotEqual([], Events),
    case lists:last(Events) of
        Last -> ok;
        _ -> poll_to(Loop, Last)
    end.

%% The end

a_killed_handler(Backend) ->
    Loop = new_loop(Backend),
    Handler = spawn_process(fun() -> none end),
    _ = tokamak_loop:register(Loop, 1, Handler),
    ok = kill(Handler),
    tokamak_test:wait_until(fun() -> maps:get(handlers, tokamak_loop:info(Loop)) =:= 0 end),
    ok = tokamak_loop:post(Loop, 1, user, x),
    ?assertEqual([{1, user, x}], tokamak_loop:poll(Loop, 5000)).

closed_by_destroy(Backend) ->
    closed_is_last(Backend, fun(Loop) -> tokamak_loop:destroy(Loop) end).

closed_by_kill(Backend) ->
    closed_is_last(Backend, fun(Loop) ->
        #{owner := Process} = tokamak_loop:info(Loop),
        tokamak_test:quietly(fun() -> kill(Process) end)
    end).

closed_is_last(Backend, End) ->
    Loop = new_loop(Backend),
    References = [tokamak_loop:register(Loop, Id, self()) || Id <- [1, 2, 3]],
    [ok = tokamak_loop:post(Loop, Id, user, N) || N <- lists:seq(1, 10), Id <- [1, 2, 3]],
    _ = tokamak_loop:start_timer(Loop, 1, 1),
    ok = End(Loop),
    [?assertEqual(closed, last(Reference)) || Reference <- References],
    ok = nothing_comes(?A_WHILE).

last(Reference) ->
    receive
        {tokamak, Reference, closed} -> closed;
        {tokamak, Reference, {event, _, _, _}} -> last(Reference)
    after 1000 -> not_closed
    end.
