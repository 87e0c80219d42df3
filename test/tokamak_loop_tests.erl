%% SPDX-License-Identifier: Apache-2.0
%% Supervised loops: polling, posting, their bounds and their end.
-module(tokamak_loop_tests).

-include_lib("eunit/include/eunit.hrl").

-import(tokamak_test, [new_loop/1, ask/2, kill/1, collect/2, spawn_process/1]).

loop_test_() ->
    tokamak_test:with_application([
        {"polling", tokamak_test:on_backends(polling())},
        {"posting", tokamak_test:cases(posting())},
        {"bounds", tokamak_test:cases(bounds())},
        {"the end of a loop", tokamak_test:on_backends(ending())},
        {"the process of a loop", tokamak_test:on_backends(event_process())}
    ]).

polling() ->
    [
        {"poll takes at once what is pending, in order", fun pending_events_are_taken/1},
        {"poll without time returns at once", fun poll_without_time/1},
        {"poll waits as long as told and no shorter", fun poll_waits/1},
        {"a post ends the wait of a poll", fun a_post_wakes/1},
        {"a second poller is told busy while the first waits", fun a_second_poller_is_busy/1},
        {"any process polls after the first has got its events", fun pollers_take_turns/1},
        {"processes that compete for polling get each event once, and none hangs", fun pollers_compete/1},
        {"the next poller takes over from a killed one", fun a_killed_poller_is_replaced/1},
        {"polls that end while events come lose none and leave no message", fun ends_and_posts_race/1},
        {"messages in the mailbox do not slow a poll that waits", fun a_long_mailbox_is_not_scanned/1}
    ].

posting() ->
    [
        {"every event type arrives as itself", fun event_types_arrive/0},
        {"any data arrives as itself", fun data_arrives/0},
        {"callback ids reach up to 2^63-1", fun ids_reach_far/0},
        {"events of one process keep their order among those of others", fun order_is_kept/0}
    ].

bounds() ->
    [
        {"exactly max_queue events are let in, and again after a poll", fun max_queue_is_exact/0},
        {"max_queue holds against many processes at once", fun max_queue_holds_under_load/0},
        {"a refused post is counted and leaves nothing", fun refused_posts_leave_nothing/0},
        {"loops do not share their bound", fun bounds_are_apart/0}
    ].

ending() ->
    [
        {"a destroyed loop says closed to everything", fun after_destroy/1},
        {"destroy ends the wait of a poller", fun destroy_ends_a_poll/1},
        {"descriptors stay open and can be watched again", fun descriptors_survive/1},
        {"a killed loop says closed to its poller at once", fun a_killed_loop_ends_a_poll/1},
        {"a loop survives its maker", fun a_loop_survives_its_maker/1},
        {"a thousand loops give everything back", fun loops_are_given_back/1}
    ].

event_process() ->
    [
        {"a name is registered, and free again after the end", fun names/1},
        {"info tells options and counts", fun info/1},
        {"its mailbox is off heap", fun mailbox_is_off_heap/1},
        {"it ignores messages that are not for it", fun strange_messages/1},
        {"a supervised loop cannot be drained", fun drain_is_not_supported/1}
    ].

%% Polling

pending_events_are_taken(Backend) ->
    Loop = new_loop(Backend),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, 100)],
    ?assertEqual([{1, user, N} || N <- lists:seq(1, 100)], tokamak_loop:poll(Loop, infinity)),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)).

poll_without_time(Backend) ->
    Loop = new_loop(Backend),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)),
    ok = tokamak_loop:post(Loop, 1, user, data),
    ?assertEqual([{1, user, data}], tokamak_loop:poll(Loop, 0)).

poll_waits(Backend) ->
    Loop = new_loop(Backend),
    Started = erlang:monotonic_time(millisecond),
    ?assertEqual([], tokamak_loop:poll(Loop, 50)),
    ?assert(erlang:monotonic_time(millisecond) - Started >= 50),
    ?assertEqual([], tokamak_test:mailbox()).

a_post_wakes(Backend) ->
    Loop = new_loop(Backend),
    Poller = start_poller(Loop, infinity),
    ok = tokamak_loop:post(Loop, 7, user, hello),
    ?assertEqual([{7, user, hello}], polled(Poller)).

a_long_mailbox_is_not_scanned(Backend) ->
    Loop = new_loop(Backend),
    Poster = spawn_process(fun() -> Loop end),
    Post = fun(_) -> tokamak_loop:post(Loop, 1, user, posted) end,
    Polls = fun() ->
        tokamak_test:repeat(2000, fun() ->
            Poster ! {run, self(), ignored, Post},
            [{1, user, posted}] = tokamak_loop:poll(Loop, infinity)
        end)
    end,
    {Empty, ok} = timer:tc(Polls),
    _ = [self() ! {unrelated, N} || N <- lists:seq(1, 100000)],
    {Full, ok} = timer:tc(Polls),
    %% A scan of the mailbox takes half a millisecond: a second in all.
    ok = tokamak_test:in_time(Full, 3 * Empty + 100000).

a_second_poller_is_busy(Backend) ->
    Loop = new_loop(Backend),
    Poller = start_poller(Loop, infinity),
    ?assertEqual({error, busy}, tokamak_loop:poll(Loop, 0)),
    ?assertEqual({error, busy}, tokamak_loop:poll(Loop, 10)),
    ok = tokamak_loop:post(Loop, 1, user, first),
    ?assertEqual([{1, user, first}], polled(Poller)),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)).

pollers_take_turns(Backend) ->
    Loop = new_loop(Backend),
    [
        begin
            Poller = start_poller(Loop, 5000),
            ok = tokamak_loop:post(Loop, 1, user, N),
            ?assertEqual([{1, user, N}], polled(Poller))
        end
     || N <- lists:seq(1, 20)
    ].

pollers_compete(Backend) ->
    Loop = new_loop(Backend),
    Test = self(),
    Count = 1000,
    Pollers = [
        spawn_link(fun() -> Test ! {self(), compete(Loop, N, [])} end)
     || N <- lists:seq(0, 7)
    ],
    [post_after_a_while(Loop, N) || N <- lists:seq(1, Count)],
    [ok = tokamak_loop:post(Loop, 2, user, stop) || _ <- Pollers],
    Polled = [
        receive
            {Poller, Numbers} -> Numbers
        after 10_000 -> erlang:error({hangs, process_info(Poller, current_stacktrace)})
        end
     || Poller <- Pollers
    ],
    ?assertEqual(lists:seq(1, Count), lists:sort(lists:append(Polled))).

%% Polls for 0 to 3 ms at a time until it has got a stop; what comes behind it is for the others.
compete(Loop, N, Numbers) ->
    case tokamak_loop:poll(Loop, N rem 4) of
        {error, busy} ->
            erlang:yield(),
            compete(Loop, N, Numbers);
        Events ->
            Got = [Number || {1, user, Number} <- Events] ++ Numbers,
            case [stop || {2, user, stop} <- Events] of
                [] -> compete(Loop, N + 1, Got);
                [_ | Others] ->
                    [ok = tokamak_loop:post(Loop, 2, user, stop) || _ <- Others],
                    Got
            end
    end.

a_killed_poller_is_replaced(Backend) ->
    Loop = new_loop(Backend),
    [
        begin
            {Poller, _} = start_poller(Loop, infinity),
            ok = kill(Poller),
            ok = tokamak_loop:post(Loop, 1, user, N),
            ?assertEqual([{1, user, N}], tokamak_loop:poll(Loop, 5000))
        end
     || N <- lists:seq(1, 20)
    ].

ends_and_posts_race(Backend) ->
    Loop = new_loop(Backend),
    Count = 500,
    Poster = spawn_link(fun() ->
        [post_after_a_while(Loop, N) || N <- lists:seq(1, Count)]
    end),
    ?assertEqual(lists:seq(1, Count), poll_shortly(Loop, Count)),
    ok = tokamak_test:wait_for_end(Poster),
    ?assertEqual([], tokamak_test:mailbox()).

post_after_a_while(Loop, N) ->
    N rem 8 =:= 0 andalso receive after 1 -> ok end,
    ok = tokamak_loop:post(Loop, 1, user, N).

poll_shortly(_Loop, 0) ->
    [];
poll_shortly(Loop, Left) ->
    Events = tokamak_loop:poll(Loop, Left rem 3),
    [N || {1, user, N} <- Events] ++ poll_shortly(Loop, Left - length(Events)).

%% A process that waits in poll when this returns.
start_poller(Loop, Timeout) ->
    Test = self(),
    Reference = make_ref(),
    Poller = spawn(fun() -> Test ! {Reference, tokamak_loop:poll(Loop, Timeout)} end),
    tokamak_test:wait_until(fun() -> process_info(Poller, status) =:= {status, waiting} end),
    {Poller, Reference}.

polled({_Poller, Reference}) ->
    receive
        {Reference, Events} -> Events
    after 5000 -> erlang:error(poll_did_not_end)
    end.

%% Posting

event_types_arrive() ->
    Loop = new_loop(native),
    Types = tokamak_loop:event_types(),
    [ok = tokamak_loop:post(Loop, 1, Type, Type) || Type <- Types],
    ?assertEqual([{1, Type, Type} || Type <- Types], tokamak_loop:poll(Loop, 5000)),
    ?assertEqual(14, length(Types)).

data_arrives() ->
    Loop = new_loop(native),
    Data = [
        0,
        -1,
        1 bsl 59,
        -(1 bsl 63),
        (1 bsl 63) - 1,
        1 bsl 63,
        1 bsl 200,
        1.5,
        atom,
        '',
        <<>>,
        <<"binary">>,
        <<5:3>>,
        crypto:strong_rand_bytes(100_000),
        [],
        "list",
        [1 | improper],
        {},
        {tuple, [{nested, #{map => #{}}}]},
        #{},
        self(),
        make_ref(),
        fun lists:map/2,
        Loop,
        lists:seq(1, 10_000),
        lists:foldl(fun(_, Deep) -> [Deep] end, [], lists:seq(1, 10_000))
    ],
    [ok = tokamak_loop:post(Loop, 1, user, Datum) || Datum <- Data],
    ?assertEqual([{1, user, Datum} || Datum <- Data], tokamak_loop:poll(Loop, 5000)).

ids_reach_far() ->
    Loop = new_loop(native),
    Ids = [1, 1 bsl 31, 1 bsl 32, 1 bsl 59, 1 bsl 60, 16#7FFFFFFFFFFFFFFF],
    [ok = tokamak_loop:post(Loop, Id, user, x) || Id <- Ids],
    ?assertEqual([{Id, user, x} || Id <- Ids], tokamak_loop:poll(Loop, 5000)).

order_is_kept() ->
    Loop = new_loop(native),
    Count = 10_000,
    Posters = lists:seq(1, 4),
    [
        spawn_link(fun() ->
            [ok = tokamak_loop:post(Loop, Id, user, N) || N <- lists:seq(1, Count)]
        end)
     || Id <- Posters
    ],
    Events = collect(Loop, 4 * Count),
    [?assertEqual(lists:seq(1, Count), [N || {I, user, N} <- Events, I =:= Id]) || Id <- Posters].

%% Bounds

max_queue_is_exact() ->
    Loop = new_loop(#{max_queue => 10}),
    repeat_exactly(Loop, 3).

repeat_exactly(_Loop, 0) ->
    ok;
repeat_exactly(Loop, Times) ->
    Results = [tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, 12)],
    ?assertEqual(lists:duplicate(10, ok) ++ lists:duplicate(2, {error, overloaded}), Results),
    ?assertEqual([{1, user, N} || N <- lists:seq(1, 10)], tokamak_loop:poll(Loop, 0)),
    repeat_exactly(Loop, Times - 1).

max_queue_holds_under_load() ->
    Loop = new_loop(#{max_queue => 100}),
    Test = self(),
    [
        spawn_link(fun() ->
            Test ! {accepted, post_until_accepted(Loop, 10_000, 0)}
        end)
     || _ <- lists:seq(1, 4)
    ],
    Events = collect(Loop, 40_000),
    ?assertEqual(40_000, length(Events)),
    Accepted = [
        receive
            {accepted, N} -> N
        end
     || _ <- lists:seq(1, 4)
    ],
    ?assertEqual(40_000, lists:sum(Accepted)),
    #{high_water_mark := Mark, queued := Queued} = tokamak_loop:info(Loop),
    ?assertEqual(0, Queued),
    %% A poster that is being refused counts for a moment.
    ?assert(Mark =< 100 + 4).

post_until_accepted(_Loop, Count, Count) ->
    Count;
post_until_accepted(Loop, Count, Done) ->
    case tokamak_loop:post(Loop, 1, user, Done) of
        ok ->
            post_until_accepted(Loop, Count, Done + 1);
        {error, overloaded} ->
            erlang:yield(),
            post_until_accepted(Loop, Count, Done)
    end.

refused_posts_leave_nothing() ->
    Loop = new_loop(#{max_queue => 1}),
    ok = tokamak_loop:post(Loop, 1, user, first),
    Memory = tokamak_test:rss(),
    Data = lists:seq(1, 1000),
    tokamak_test:repeat(20_000, fun() ->
        {error, overloaded} = tokamak_loop:post(Loop, 1, user, Data)
    end),
    ?assertMatch(#{refused := 20_000, queued := 1, pushed := 1}, tokamak_loop:info(Loop)),
    %% 20,000 copies would be 320 MB.
    ?assert(tokamak_test:rss() - Memory < 64_000_000),
    ?assertEqual([{1, user, first}], tokamak_loop:poll(Loop, 0)).

bounds_are_apart() ->
    [Full, Empty] = [new_loop(#{max_queue => 1}) || _ <- [1, 2]],
    ok = tokamak_loop:post(Full, 1, user, x),
    ?assertEqual({error, overloaded}, tokamak_loop:post(Full, 1, user, x)),
    ?assertEqual(ok, tokamak_loop:post(Empty, 1, user, x)).

%% The end of a loop

after_destroy(Backend) ->
    Loop = new_loop(Backend),
    {ok, Read, _Write} = tokamak_fd:pipe(),
    ok = tokamak_loop:post(Loop, 1, user, dropped),
    Timer = tokamak_loop:start_timer(Loop, 0, 1),
    ?assertEqual(ok, tokamak_loop:destroy(Loop)),
    [
        ?assertEqual({error, closed}, Call())
     || Call <- [
            fun() -> tokamak_loop:destroy(Loop) end,
            fun() -> tokamak_loop:info(Loop) end,
            fun() -> tokamak_loop:poll(Loop, 0) end,
            fun() -> tokamak_loop:poll(Loop, infinity) end,
            fun() -> tokamak_loop:drain(Loop) end,
            fun() -> tokamak_loop:drain(Loop, 5) end,
            fun() -> tokamak_loop:add_reader(Loop, Read, 1) end,
            fun() -> tokamak_loop:add_writer(Loop, Read, 1) end,
            fun() -> tokamak_loop:remove_reader(Loop, Read) end,
            fun() -> tokamak_loop:remove_writer(Loop, Read) end,
            fun() -> tokamak_loop:start_timer(Loop, 0, 1) end,
            fun() -> tokamak_loop:cancel_timer(Loop, Timer) end,
            fun() -> tokamak_loop:register(Loop, 1, self()) end,
            fun() -> tokamak_loop:unregister(Loop, 1) end,
            fun() -> tokamak_loop:post(Loop, 1, user, x) end
        ]
    ],
    ?assertEqual([], tokamak_test:mailbox()).

destroy_ends_a_poll(Backend) ->
    Loop = new_loop(Backend),
    Poller = start_poller(Loop, infinity),
    ok = tokamak_loop:destroy(Loop),
    ?assertEqual({error, closed}, polled(Poller)).

descriptors_survive(Backend) ->
    [First, Second] = [new_loop(Backend) || _ <- [1, 2]],
    {ok, Read, Write} = tokamak_fd:pipe(),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    ok = tokamak_loop:add_reader(First, Read, 1),
    [{1, read, undefined}] = tokamak_loop:poll(First, 5000),
    ok = tokamak_loop:destroy(First),
    ok = tokamak_loop:add_reader(Second, Read, 2),
    ?assertEqual([{2, read, undefined}], tokamak_loop:poll(Second, 5000)),
    ?assertEqual({ok, <<"x">>}, tokamak_fd:read(Read, 1)).

a_killed_loop_ends_a_poll(Backend) ->
    Loop = new_loop(Backend),
    Poller = start_poller(Loop, infinity),
    #{owner := Process} = tokamak_loop:info(Loop),
    ok = tokamak_test:quietly(fun() -> kill(Process) end),
    ?assertEqual({error, closed}, polled(Poller)),
    tokamak_test:wait_for({error, closed}, fun() -> tokamak_loop:post(Loop, 1, user, x) end),
    ?assertEqual({error, closed}, tokamak_loop:destroy(Loop)).

a_loop_survives_its_maker(Backend) ->
    {ok, Loop} = tokamak_test:in_process(fun() -> tokamak_loop:new(#{backend => Backend}) end),
    ok = tokamak_loop:post(Loop, 1, user, x),
    ?assertEqual([{1, user, x}], tokamak_loop:poll(Loop, 5000)),
    ok = tokamak_loop:destroy(Loop).

loops_are_given_back(Backend) ->
    Before = tokamak_test:resources(),
    Memory = erlang:memory(processes),
    [
        begin
            {ok, Loop} = tokamak_loop:new(#{backend => Backend}),
            ok = tokamak_loop:post(Loop, 1, user, <<"dropped">>),
            _ = tokamak_loop:start_timer(Loop, 100_000, 1),
            Reference = tokamak_loop:register(Loop, 2, self()),
            ok = tokamak_loop:destroy(Loop),
            receive
                {tokamak, Reference, closed} -> ok
            end
        end
     || _ <- lists:seq(1, 1000)
    ],
    tokamak_test:given_back(Before),
    tokamak_test:wait_until(fun() -> erlang:memory(processes) < Memory + 2_000_000 end).

%% The process of a loop

names(Backend) ->
    Options = #{name => tokamak_loop_tests_name, backend => Backend},
    Loop = new_loop(Options),
    Process = whereis(tokamak_loop_tests_name),
    ?assertMatch(#{owner := Process}, tokamak_loop:info(Loop)),
    ?assertEqual({error, {already_started, Process}}, tokamak_loop:new(Options)),
    ok = tokamak_loop:destroy(Loop),
    tokamak_test:wait_for(undefined, fun() -> whereis(tokamak_loop_tests_name) end),
    Again = new_loop(Options),
    ok = tokamak_loop:destroy(Again).

info(Backend) ->
    Loop = new_loop(#{backend => Backend, max_queue => 100, max_timers => 50}),
    {ok, Read, Write} = tokamak_fd:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    ok = tokamak_loop:add_writer(Loop, Write, 2),
    ok = tokamak_loop:remove_writer(Loop, Write),
    _ = tokamak_loop:start_timer(Loop, 100_000, 3),
    [ok = tokamak_loop:post(Loop, 4, user, N) || N <- [1, 2, 3]],
    ?assertMatch(
        #{
            kind := supervised,
            backend := Backend,
            max_queue := 100,
            max_timers := 50,
            timers := 1,
            readers := 1,
            writers := 0,
            handlers := 0,
            pushed := 3,
            drained := 0,
            queued := 3,
            refused := 0,
            coalesced := 0,
            high_water_mark := 3
        },
        tokamak_loop:info(Loop)
    ),
    [_, _, _] = tokamak_loop:poll(Loop, 0),
    ?assertMatch(#{pushed := 3, drained := 3, queued := 0}, tokamak_loop:info(Loop)).

mailbox_is_off_heap(Backend) ->
    #{owner := Process} = tokamak_loop:info(new_loop(Backend)),
    ?assertEqual({message_queue_data, off_heap}, process_info(Process, message_queue_data)).

strange_messages(Backend) ->
    Loop = new_loop(Backend),
    #{owner := Process} = tokamak_loop:info(Loop),
    [
        Process ! Message
     || Message <- [
            hello,
            {tokamak, make_ref(), ready},
            {tokamak, Loop, ready},
            {caught_up, self()},
            {'DOWN', make_ref(), process, self(), normal},
            {'EXIT', self(), normal}
        ]
    ],
    ok = gen_server:cast(Process, hello),
    _ = tokamak_loop:register(Loop, 1, self()),
    ok = tokamak_loop:unregister(Loop, 1),
    ok = tokamak_loop:post(Loop, 1, user, x),
    ?assertEqual([{1, user, x}], tokamak_loop:poll(Loop, 5000)).

drain_is_not_supported(Backend) ->
    Loop = new_loop(Backend),
    ?assertEqual({error, not_supported}, tokamak_loop:drain(Loop)),
    ?assertEqual({error, not_supported}, tokamak_loop:drain(Loop, 1)),
    #{owner := Process} = tokamak_loop:info(Loop),
    ?assert(is_process_alive(Process)),
    Other = spawn_process(fun() -> none end),
    ?assertEqual({error, not_supported}, ask(Other, fun(_) -> tokamak_loop:drain(Loop) end)).
