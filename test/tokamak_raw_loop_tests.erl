%% SPDX-License-Identifier: Apache-2.0
%% Raw loops: one ready, then drain until empty.
-module(tokamak_raw_loop_tests).

-include_lib("eunit/include/eunit.hrl").

-import(tokamak_test, [raw_loop/1, ask/2, kill/1, drain_all/1, spawn_process/1, nothing_comes/1, repeat/2]).

%% How long to wait for what must not come, in milliseconds.
-define(A_WHILE, 30).

raw_loop_test_() ->
    tokamak_test:with_application([
        {"ready", tokamak_test:on_backends(ready())},
        {"under load", tokamak_test:cases(load())},
        {"the owner", tokamak_test:on_backends(owner())}
    ]).

ready() ->
    [
        {"many events send one ready", fun many_events_one_ready/1},
        {"after empty the next event sends ready again", fun empty_arms_again/1},
        {"drain takes no more than asked, and says more", fun drain_is_bounded/1},
        {"after more no ready comes, however many events do", fun no_ready_after_more/1},
        {"an empty loop drains to nothing", fun nothing_to_drain/1},
        {"timers and descriptors send the same one ready", fun all_sources_one_ready/1},
        {"poll does both for the owner", fun poll_of_the_owner/1},
        {"poll tells of what is ready whatever the last one left", fun poll_after_more/1},
        {"a poll that waits is told of what is ready, though the last drain said more", fun poll_waits_after_more/1},
        {"a drain looks at a portion of many descriptors, and all are told once", fun drain_in_portions/1},
        {"max_queue bounds what is not drained", fun max_queue_is_exact/1}
    ].

load() ->
    [
        {"at most one ready is in the mailbox, and no event is lost", fun one_ready_under_load/0},
        {"an owner that drains unasked gathers no ready", fun drain_without_ready/0},
        {"an owner with a long mailbox drains", fun drain_with_a_long_mailbox/0},
        {"drains that never say empty take no memory", fun never_empty/0}
    ].

owner() ->
    [
        {"nobody else drains, polls or destroys it", fun only_the_owner/1},
        {"others post, watch and set timers", fun others_use_it/1},
        {"it ends with its owner", fun it_ends_with_its_owner/1},
        {"destroying it sends its owner nothing", fun destroy_is_silent/1},
        {"destroyed it says closed", fun after_destroy/1},
        {"it has no handlers", fun no_handlers/1},
        {"the process that selects for it ends with it", fun no_process_is_left/1}
    ].

%% Ready

many_events_one_ready(Backend) ->
    Loop = raw_loop(Backend),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, 100)],
    ok = ready(Loop),
    ok = nothing_comes(0),
    ?assertEqual({empty, [{1, user, N} || N <- lists:seq(1, 100)]}, tokamak_loop:drain(Loop)),
    ok = nothing_comes(?A_WHILE).

ready(Loop) ->
    receive
        {tokamak, Loop, ready} -> ok
    after 5000 -> erlang:error(no_ready)
    end.

empty_arms_again(Backend) ->
    Loop = raw_loop(Backend),
    [
        begin
            ok = tokamak_loop:post(Loop, 1, user, N),
            ok = ready(Loop),
            ?assertEqual({empty, [{1, user, N}]}, tokamak_loop:drain(Loop))
        end
     || N <- lists:seq(1, 50)
    ],
    ok = nothing_comes(?A_WHILE).

drain_is_bounded(Backend) ->
    Loop = raw_loop(Backend),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, 10)],
    ok = ready(Loop),
    ?assertEqual({more, [{1, user, 1}]}, tokamak_loop:drain(Loop, 1)),
    ?assertEqual({more, [{1, user, N} || N <- lists:seq(2, 9)]}, tokamak_loop:drain(Loop, 8)),
    {_, [{1, user, 10}]} = tokamak_loop:drain(Loop, 1),
    ?assertEqual({empty, []}, tokamak_loop:drain(Loop, 1)).

no_ready_after_more(Backend) ->
    Loop = raw_loop(Backend),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- [1, 2]],
    ok = ready(Loop),
    {more, [{1, user, 1}]} = tokamak_loop:drain(Loop, 1),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- [3, 4, 5]],
    ok = nothing_comes(?A_WHILE),
    ?assertEqual({empty, [{1, user, N} || N <- [2, 3, 4, 5]]}, tokamak_loop:drain(Loop)),
    ok = tokamak_loop:post(Loop, 1, user, 6),
    ok = ready(Loop),
    ?assertEqual({empty, [{1, user, 6}]}, tokamak_loop:drain(Loop)).

nothing_to_drain(Backend) ->
    Loop = raw_loop(Backend),
    ?assertEqual({empty, []}, tokamak_loop:drain(Loop)),
    ?assertEqual({empty, []}, tokamak_loop:drain(Loop, 16#7FFFFFFF)),
    ok = nothing_comes(0).

all_sources_one_ready(Backend) ->
    Loop = raw_loop(Backend),
    {Read, Write} = tokamak_test:pipe(),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    ok = tokamak_loop:post(Loop, 1, user, posted),
    Timer = tokamak_loop:start_timer(Loop, 0, 2),
    ok = tokamak_loop:add_reader(Loop, Read, 3),
    ok = ready(Loop),
    %% Whatever comes late sends no second one until a drain said empty.
    ok = nothing_comes(?A_WHILE),
    ?assertEqual(
        {empty, [{1, user, posted}, {2, timer, Timer}, {3, read, undefined}]},
        sorted(tokamak_loop:drain(Loop))
    ).

sorted({Tag, Events}) ->
    {Tag, lists:sort(Events)}.

poll_of_the_owner(Backend) ->
    Loop = raw_loop(Backend),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)),
    ?assertEqual([], tokamak_loop:poll(Loop, 20)),
    ok = tokamak_loop:post(Loop, 1, user, x),
    ?assertEqual([{1, user, x}], tokamak_loop:poll(Loop, infinity)),
    Timer = tokamak_loop:start_timer(Loop, 10, 2),
    ?assertEqual([{2, timer, Timer}], tokamak_loop:poll(Loop, infinity)),
    ?assertEqual([], tokamak_test:mailbox()).

%% As many descriptors as a poll takes at most: what it took was all, but it cannot know.
poll_after_more(Backend) ->
    Loop = raw_loop(Backend),
    Pipes = [readable_pipe(Loop, Id) || Id <- lists:seq(1, 1024)],
    [?assertNotEqual([], tokamak_loop:poll(Loop, 5000)) || _ <- lists:seq(1, 20)],
    [ok = tokamak_fd:close(Fd) || {Read, Write} <- Pipes, Fd <- [Read, Write]].

poll_waits_after_more(Backend) ->
    Loop = raw_loop(Backend),
    {_, _} = readable_pipe(Loop, 1),
    ok = ready(Loop),
    ?assertEqual({more, [{1, read, undefined}]}, tokamak_loop:drain(Loop, 1)),
    ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, infinity)),
    ?assertEqual({more, [{1, read, undefined}]}, tokamak_loop:drain(Loop, 1)),
    ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 0)).

drain_in_portions(Backend) ->
    Loop = raw_loop(Backend),
    Ids = lists:seq(1, 1000),
    Pipes = [readable_pipe(Loop, Id) || Id <- Ids],
    %% The VM tells of some later than of others.
    tokamak_test:wait_until(fun() -> drained_ids(Loop) =:= Ids end),
    {more, [{First, read, undefined}]} = tokamak_loop:drain(Loop, 1),
    #{queued := Queued} = tokamak_loop:info(Loop),
    ?assert(Queued < length(Ids) div 2),
    ?assertEqual(Ids, lists:sort([First | drained_ids(Loop)])),
    [ok = tokamak_fd:close(Fd) || {Read, Write} <- Pipes, Fd <- [Read, Write]].

drained_ids(Loop) ->
    lists:sort([Id || {Id, read, undefined} <- drain_all(Loop)]).

readable_pipe(Loop, Id) ->
    {Read, Write} = tokamak_test:pipe(),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    ok = tokamak_loop:add_reader(Loop, Read, Id),
    {Read, Write}.

max_queue_is_exact(Backend) ->
    Loop = raw_loop(#{backend => Backend, max_queue => 3}),
    [
        begin
            Results = [tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, 5)],
            ?assertEqual(lists:duplicate(3, ok) ++ lists:duplicate(2, {error, overloaded}), Results),
            ?assertEqual([{1, user, N} || N <- [1, 2, 3]], drain_all(Loop))
        end
     || _ <- [1, 2, 3]
    ].

%% Under load

one_ready_under_load() ->
    Loop = raw_loop(#{max_queue => 1000}),
    Each = 200_000,
    First = tokamak_id:next(4),
    ok = tokamak_test_nif:start_producers(tokamak_nif:table(), Loop, 4, Each, First, 60_000),
    ?assertEqual(lists:duplicate(4, Each), drain_on_ready(Loop, First, [0, 0, 0, 0], 4 * Each)),
    tokamak_test:wait_until(fun() -> maps:get(running, tokamak_test_nif:producers()) =:= 0 end).

%% Counts the events of each producer, which have to come in order.
drain_on_ready(_Loop, _First, Next, 0) ->
    Next;
drain_on_ready(Loop, First, Next, Left) ->
    ok = ready(Loop),
    {Next1, Left1} = drain_to_empty(Loop, First, Next, Left),
    ?assert(length(tokamak_test:mailbox()) =< 1),
    drain_on_ready(Loop, First, Next1, Left1).

drain_to_empty(Loop, First, Next, Left) ->
    {Tag, Events} = tokamak_loop:drain(Loop, 500),
    Next1 = lists:foldl(fun(Event, Acc) -> take(Event, First, Acc) end, Next, Events),
    Left1 = Left - length(Events),
    case Tag of
        more -> drain_to_empty(Loop, First, Next1, Left1);
        empty -> {Next1, Left1}
    end.

take({Id, user, N}, First, Next) ->
    {Before, [N | After]} = lists:split(Id - First, Next),
    Before ++ [N + 1 | After].

drain_without_ready() ->
    Loop = raw_loop(#{max_queue => 1000}),
    Each = 100_000,
    First = tokamak_id:next(2),
    ok = tokamak_test_nif:start_producers(tokamak_nif:table(), Loop, 2, Each, First, 60_000),
    ?assertEqual([Each, Each], drain_unasked(Loop, First, [0, 0], 2 * Each)).

drain_unasked(_Loop, _First, Next, 0) ->
    Next;
drain_unasked(Loop, First, Next, Left) ->
    {Next1, Left1} = drain_to_empty(Loop, First, Next, Left),
    %% One for what came since, and one that each producer had under way when the drain looked.
    ?assert(length(tokamak_test:mailbox()) =< 1 + 2),
    drain_unasked(Loop, First, Next1, Left1).

drain_with_a_long_mailbox() ->
    Loop = raw_loop(#{}),
    [self() ! {other, N} || N <- lists:seq(1, 5000)],
    [
        begin
            ok = tokamak_loop:post(Loop, 1, user, N),
            ?assertEqual([{1, user, N}], drain_all(Loop))
        end
     || N <- lists:seq(1, 100)
    ],
    [
        receive
            {other, N} -> ok
        end
     || N <- lists:seq(1, 5000)
    ],
    ok = tokamak_loop:post(Loop, 1, user, last),
    ok = ready(Loop),
    ?assertEqual([{1, user, last}], drain_all(Loop)).

%% A descriptor that is ready all the time.
never_empty() ->
    Loop = raw_loop(native),
    {Read, _Write} = readable_pipe(Loop, 1),
    ok = ready(Loop),
    Serve = fun() ->
        ?assertEqual({more, [{1, read, undefined}]}, tokamak_loop:drain(Loop, 1)),
        {ok, 1} = tokamak_fd:handle_fd_event_and_reselect(Read, read)
    end,
    repeat(10_000, Serve),
    Memory = tokamak_test:rss(),
    repeat(1_000_000, Serve),
    %% A word for each event would be as much.
    ?assert(tokamak_test:rss() - Memory < 8_000_000).

%% The owner

only_the_owner(Backend) ->
    Owner = spawn_process(fun() -> raw_loop(Backend) end),
    Loop = ask(Owner, fun(Loop) -> Loop end),
    ok = tokamak_loop:post(Loop, 1, user, x),
    [
        ?assertError(not_owner, Call())
     || Call <- [
            fun() -> tokamak_loop:drain(Loop) end,
            fun() -> tokamak_loop:drain(Loop, 1) end,
            fun() -> tokamak_loop:poll(Loop, 0) end,
            fun() -> tokamak_loop:poll(Loop, 1) end,
            fun() -> tokamak_loop:destroy(Loop) end
        ]
    ],
    ?assertEqual({empty, [{1, user, x}]}, ask(Owner, fun tokamak_loop:drain/1)).

others_use_it(Backend) ->
    Owner = spawn_process(fun() -> raw_loop(Backend) end),
    Loop = ask(Owner, fun(Loop) -> Loop end),
    {Read, Write} = tokamak_test:pipe(),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    Timer = tokamak_loop:start_timer(Loop, 0, 2),
    ok = tokamak_loop:post(Loop, 3, user, x),
    ?assertMatch(#{kind := raw, owner := Owner, readers := 1}, tokamak_loop:info(Loop)),
    Expected = [{1, read, undefined}, {2, timer, Timer}, {3, user, x}],
    %% The descriptor may come again, as nobody reads from it.
    ?assertEqual(Expected, ask(Owner, fun(_) -> poll_kinds(Loop, 3, []) end)).

poll_kinds(_Loop, Kinds, Seen) when length(Seen) =:= Kinds ->
    Seen;
poll_kinds(Loop, Kinds, Seen) ->
    poll_kinds(Loop, Kinds, lists:usort(tokamak_loop:poll(Loop, 5000) ++ Seen)).

it_ends_with_its_owner(Backend) ->
    Before = tokamak_test:resources(),
    {Read, Write} = tokamak_test:pipe(),
    Owner = spawn_process(fun() -> [raw_loop(Backend) || _ <- lists:seq(1, 20)] end),
    [Loop | _] = Loops = ask(Owner, fun(Loops) -> Loops end),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    [tokamak_loop:start_timer(L, 100_000, 1) || L <- Loops],
    [ok = tokamak_loop:post(L, 1, user, x) || L <- Loops],
    ok = kill(Owner),
    [
        tokamak_test:wait_for({error, closed}, fun() -> tokamak_loop:post(L, 1, user, x) end)
     || L <- Loops
    ],
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    Other = raw_loop(Backend),
    ok = tokamak_loop:add_reader(Other, Read, 2),
    ?assertEqual([{2, read, undefined}], tokamak_loop:poll(Other, 5000)),
    ok = tokamak_loop:destroy(Other),
    [ok = tokamak_fd:close(Fd) || Fd <- [Read, Write]],
    %% This process is an owner since it opened the pipe.
    tokamak_test:given_back(maps:update_with(owners, fun(N) -> N + 1 end, Before)).

destroy_is_silent(Backend) ->
    Loop = raw_loop(Backend),
    ok = tokamak_loop:destroy(Loop),
    ok = nothing_comes(?A_WHILE).

after_destroy(Backend) ->
    Loop = raw_loop(Backend),
    ok = tokamak_loop:destroy(Loop),
    {ok, Read, _Write} = tokamak_fd:pipe(),
    [
        ?assertEqual({error, closed}, Call())
     || Call <- [
            fun() -> tokamak_loop:destroy(Loop) end,
            fun() -> tokamak_loop:info(Loop) end,
            fun() -> tokamak_loop:poll(Loop, 0) end,
            fun() -> tokamak_loop:drain(Loop) end,
            fun() -> tokamak_loop:drain(Loop, 5) end,
            fun() -> tokamak_loop:post(Loop, 1, user, x) end,
            fun() -> tokamak_loop:start_timer(Loop, 1, 1) end,
            fun() -> tokamak_loop:add_reader(Loop, Read, 1) end,
            fun() -> tokamak_loop:register(Loop, 1, self()) end
        ]
    ].

no_handlers(Backend) ->
    Loop = raw_loop(Backend),
    ?assertEqual({error, not_supported}, tokamak_loop:register(Loop, 1, self())),
    ?assertEqual({error, not_supported}, tokamak_loop:unregister(Loop, 1)).

no_process_is_left(Backend) ->
    Before = children(),
    Loop = raw_loop(Backend),
    ok = tokamak_loop:destroy(Loop),
    Owner = spawn_process(fun() -> raw_loop(Backend) end),
    _ = ask(Owner, fun(_) -> ok end),
    ok = kill(Owner),
    tokamak_test:wait_for(Before, fun children/0).

children() ->
    proplists:get_value(active, supervisor:count_children(tokamak_loop_sup)).
