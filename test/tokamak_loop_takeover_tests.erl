%% SPDX-License-Identifier: Apache-2.0
%% @doc What happens to events whose consumer changes: watches that end, handlers that come and go.
-module(tokamak_loop_takeover_tests).

-include_lib("eunit/include/eunit.hrl").

takeover_test_() ->
    {setup, fun() -> {ok, _} = application:ensure_all_started(tokamak) end, [
        tokamak_test:cases([
            {"a descriptor whose loop was destroyed with a select message under way is told",
                fun destroyed_with_a_message/0},
            {"a descriptor that was removed from a loop that was then killed is told", fun removed_then_killed/0},
            {"a descriptor whose loop was killed is told, also after a native loop had it", fun killed_then_native/0},
            {"a loop that ends takes no select from the next one", fun next_loop/0}
        ]),
        [
            {Title ++ " (" ++ atom_to_list(Backend) ++ ")", {timeout, 30, fun() -> Test(Backend) end}}
         || Backend <- [native, select],
            {Title, Test} <- [
                {"events of ended watches do not hold up a poll", fun stale_events/1},
                {"events of ended watches do not hold up a raw poll", fun stale_events_raw/1},
                {"a handler is told what the handler before it left unread", fun next_handler/1},
                {"a handler is told what a poller left unread", fun after_poller/1},
                {"a poller is told what a handler left unread", fun after_handler/1}
            ]
        ]
    ]}.

-define(STALE, 1500).

stale_events(Backend) ->
    {ok, Loop} = tokamak_loop:new(#{backend => Backend}),
    make_stale(Loop),
    ?assertEqual([], tokamak_loop:poll(Loop, 100)),
    ok = tokamak_loop:post(Loop, 7, user, here),
    ?assertEqual([{7, user, here}], tokamak_loop:poll(Loop, 5000)),
    ok = tokamak_loop:destroy(Loop).

stale_events_raw(Backend) ->
    {ok, Loop} = tokamak_loop:open(#{backend => Backend}),
    make_stale(Loop),
    ok = tokamak_loop:post(Loop, 7, user, here),
    ?assertEqual([{7, user, here}], tokamak_loop:poll(Loop, 5000)),
    ok = tokamak_loop:destroy(Loop).

%% Leaves more events of ended watches in the queue than one call takes.
make_stale(Loop) ->
    Pipes = [readable(Loop, N) || N <- lists:seq(1, ?STALE)],
    tokamak_test:wait_until(fun() ->
        case tokamak_loop:info(Loop) of
            #{backend := select, queued := Queued} -> Queued =:= ?STALE;
            #{backend := native} -> true
        end
    end),
    [
        begin
            ok = tokamak_loop:remove_reader(Loop, Read),
            ok = tokamak_fd:close(Read),
            ok = tokamak_fd:close(Write)
        end
     || {Read, Write} <- Pipes
    ].

readable(Loop, Id) ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, Id),
    {ok, 1} = tokamak_fd:write(Write, "x"),
    {Read, Write}.

next_handler(Backend) ->
    {ok, Loop} = tokamak_loop:new(#{backend => Backend}),
    First = spawn(fun() -> receive stop -> ok end end),
    Monitor = monitor(process, First),
    _ = tokamak_loop:register(Loop, 5, First),
    {Read, Write} = readable(Loop, 5),
    tokamak_test:wait_until(fun() -> process_info(First, message_queue_len) =:= {message_queue_len, 1} end),
    exit(First, kill),
    receive {'DOWN', Monitor, process, First, killed} -> ok end,
    expect_event(tokamak_loop:register(Loop, 5, self())),
    close(Loop, Read, Write).

after_poller(Backend) ->
    {ok, Loop} = tokamak_loop:new(#{backend => Backend}),
    {Read, Write} = readable(Loop, 5),
    ?assertEqual([{5, read, undefined}], tokamak_loop:poll(Loop, 5000)),
    Ref = tokamak_loop:register(Loop, 5, self()),
    expect_event(Ref),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)),
    {ok, <<"x">>} = tokamak_fd:read(Read, 10),
    {ok, 1} = tokamak_fd:write(Write, "y"),
    expect_event(Ref),
    close(Loop, Read, Write).

after_handler(Backend) ->
    {ok, Loop} = tokamak_loop:new(#{backend => Backend}),
    Ref = tokamak_loop:register(Loop, 5, self()),
    {Read, Write} = readable(Loop, 5),
    expect_event(Ref),
    ok = tokamak_loop:unregister(Loop, 5),
    ?assertEqual([{5, read, undefined}], tokamak_loop:poll(Loop, 5000)),
    close(Loop, Read, Write).

expect_event(Ref) ->
    receive
        {tokamak, Ref, {event, 5, read, undefined}} -> ok
    after 5000 -> ?assert(false)
    end.

close(Loop, Read, Write) ->
    ok = tokamak_fd:close(Read),
    ok = tokamak_fd:close(Write),
    ok = tokamak_loop:destroy(Loop).

destroyed_with_a_message() ->
    {Loop, Process, Read, Write} = suspended(),
    {Destroyer, Monitor} = spawn_monitor(fun() -> ok = tokamak_loop:destroy(Loop) end),
    wait_for_messages(Process, 1),
    {ok, 1} = tokamak_fd:write(Write, "x"),
    wait_for_messages(Process, 2),
    true = erlang:resume_process(Process),
    receive {'DOWN', Monitor, process, Destroyer, normal} -> ok end,
    is_told_by_next(Read).

removed_then_killed() ->
    {Loop, Process, Read, Write} = suspended(),
    {ok, 1} = tokamak_fd:write(Write, "x"),
    wait_for_messages(Process, 1),
    ok = tokamak_loop:remove_reader(Loop, Read),
    kill(Loop, Process),
    is_told_by_next(Read).

killed_then_native() ->
    {Loop, Process, Read, Write} = suspended(),
    {ok, 1} = tokamak_fd:write(Write, "x"),
    wait_for_messages(Process, 1),
    kill(Loop, Process),
    Native = tokamak_test:new_loop(native),
    ok = tokamak_loop:add_reader(Native, Read, 3),
    ok = tokamak_loop:remove_reader(Native, Read),
    is_told_by_next(Read).

%% A loop that watches a descriptor, and whose process does not look at its mailbox.
suspended() ->
    {ok, Loop} = tokamak_loop:new(#{backend => select}),
    #{owner := Process} = tokamak_loop:info(Loop),
    {ok, Read, Write} = tokamak_fd:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    true = erlang:suspend_process(Process),
    {Loop, Process, Read, Write}.

wait_for_messages(Process, Count) ->
    tokamak_test:wait_for({message_queue_len, Count}, fun() -> process_info(Process, message_queue_len) end).

kill(Loop, Process) ->
    ok = tokamak_test:quietly(fun() -> tokamak_test:kill(Process) end),
    tokamak_test:wait_for({error, closed}, fun() -> tokamak_loop:info(Loop) end).

is_told_by_next(Read) ->
    Next = tokamak_test:new_loop(select),
    ok = tokamak_loop:add_reader(Next, Read, 2),
    ?assertEqual([{2, read, undefined}], tokamak_loop:poll(Next, 5000)),
    ?assertEqual({ok, <<"x">>}, tokamak_fd:read(Read, 10)).

%% So many that the next loop gets some of them while the one before still ends.
-define(DESCRIPTORS, 1000).
-define(TAKEN, 50).

next_loop() ->
    Next = tokamak_test:new_loop(select),
    Pipes = [tokamak_test:pipe() || _ <- lists:seq(1, ?DESCRIPTORS)],
    tokamak_test:repeat(100, fun() -> next_loop_of(Next, Pipes) end).

next_loop_of(Next, Pipes) ->
    {ok, Loop} = tokamak_loop:new(#{backend => native}),
    [ok = tokamak_loop:add_reader(Loop, Read, 1) || {Read, _} <- Pipes],
    Some = lists:sublist(Pipes, rand:uniform(?DESCRIPTORS - ?TAKEN), ?TAKEN),
    Taken = maps:from_list(lists:zip(lists:seq(1, ?TAKEN), Some)),
    {Destroyer, Monitor} = spawn_monitor(fun() -> ok = tokamak_loop:destroy(Loop) end),
    maps:foreach(fun(Id, {Read, _}) -> take_over(Next, Read, Id) end, Taken),
    receive {'DOWN', Monitor, process, Destroyer, normal} -> ok end,
    maps:foreach(fun(_, {_, Write}) -> {ok, 1} = tokamak_fd:write(Write, "x") end, Taken),
    is_told_of(Next, Taken).

take_over(Next, Read, Id) ->
    case tokamak_loop:add_reader(Next, Read, Id) of
        ok -> ok;
        {error, busy} -> take_over(Next, Read, Id)
    end.

is_told_of(_Loop, Left) when map_size(Left) =:= 0 ->
    ok;
is_told_of(Loop, Left) ->
    Events = tokamak_loop:poll(Loop, 5000),
    ?assertMatch([_ | _], Events),
    Told = [Id || {Id, read, undefined} <- Events],
    [
        begin
            {Read, _} = maps:get(Id, Left),
            ?assertEqual({ok, <<"x">>}, tokamak_fd:read(Read, 10)),
            ok = tokamak_loop:remove_reader(Loop, Read)
        end
     || Id <- Told
    ],
    is_told_of(Loop, maps:without(Told, Left)).
