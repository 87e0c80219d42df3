%% SPDX-License-Identifier: Apache-2.0
%% Handlers with very many callback ids, and what is watched for them.
-module(tokamak_many_ids_tests).

-include_lib("eunit/include/eunit.hrl").

-import(tokamak_test, [new_loop/1, pipe/0, spawn_process/1, ask/2, kill/1, nothing_comes/1, mailbox_length/1]).

-define(A_WHILE, 20).
-define(MANY, 1500).

many_ids_test_() ->
    tokamak_test:with_application([
        {"what is watched for an id", tokamak_test:on_backends(watching())},
        {"many ids", tokamak_test:on_backends(many())},
        {"many ids with events that wait for pollers", tokamak_test:on_backends(parked())},
        {"many ids of a handler that lags", tokamak_test:cases(lagging())}
    ]).

watching() ->
    [
        {"is counted once, however it is watched and ends", fun counted/1},
        {"ends with the owner of the descriptor", fun owner_dies/1},
        {"moves with the descriptor to another loop", fun another_loop/1},
        {"is told to the handler of the latest id", fun renamed/1},
        {"is told under the next id, also when an event waited", fun watched_anew/1},
        {"is told for both directions", fun both_directions/1},
        {"is told no more when it is closed", fun closed/1}
    ].

many() ->
    [
        {"what a handler that died left unread is polled", fun death/1},
        {"what one of two handlers left unread wakes the poller", fun death_of_one/1},
        {"what a handler that died left unread is the next handler's", fun next_handler/1},
        {"what became another handler's stays its own while an id goes", fun overdue/1}
    ].

parked() ->
    [
        {"are handlers' as they come, in order, the others stay in order", fun posts_parked/1},
        {"which a poller takes meanwhile, lose none of them", fun posts_polled/1},
        {"and are a descriptor's are told under its latest id", fun descriptors_parked/1},
        {"and outlive a watch are told under the next one", fun outlived/1}
    ].

lagging() ->
    [
        {"an id that goes takes its events, the others come in order", fun ids_go/0},
        {"an id that is taken over takes its events along, in order", fun ids_taken_over/0}
    ].

%% What is watched for an id

counted(Backend) ->
    Loop = new_loop(Backend),
    {Read, _Write} = pipe(),
    Steps = [
        {fun() -> tokamak_loop:add_reader(Loop, Read, 1) end, [1, 0]},
        {fun() -> tokamak_loop:add_reader(Loop, Read, 2) end, [1, 0]},
        {fun() -> tokamak_loop:add_reader(Loop, Read, 2) end, [1, 0]},
        {fun() -> tokamak_loop:add_writer(Loop, Read, 2) end, [1, 1]},
        {fun() -> tokamak_loop:add_writer(Loop, Read, 3) end, [1, 1]},
        {fun() -> tokamak_loop:remove_reader(Loop, Read) end, [0, 1]},
        {fun() -> tokamak_loop:add_reader(Loop, Read, 3) end, [1, 1]},
        {fun() -> tokamak_loop:remove_writer(Loop, Read) end, [1, 0]},
        {fun() -> tokamak_loop:add_writer(Loop, Read, 1) end, [1, 1]},
        {fun() -> tokamak_fd:close(Read) end, [0, 0]}
    ],
    [{ok, Watched} = {Step(), watched(Loop)} || {Step, Watched} <- Steps].

watched(Loop) ->
    #{readers := Readers, writers := Writers} = tokamak_loop:info(Loop),
    [Readers, Writers].

owner_dies(Backend) ->
    Loop = new_loop(Backend),
    Owner = spawn_process(fun() ->
        Pipes = [pipe() || _ <- lists:seq(1, 100)],
        [ok = tokamak_loop:add_reader(Loop, Read, Id) || {Id, {Read, _}} <- lists:enumerate(Pipes)],
        [ok = tokamak_loop:add_writer(Loop, Write, Id) || {Id, {_, Write}} <- lists:enumerate(Pipes)]
    end),
    _ = ask(Owner, fun(_) -> ready end),
    ?assertEqual([100, 100], watched(Loop)),
    ok = kill(Owner),
    tokamak_test:wait_for([0, 0], fun() -> watched(Loop) end).

another_loop(Backend) ->
    [First, Second] = [new_loop(Backend), new_loop(Backend)],
    {Read, Write} = pipe(),
    ok = tokamak_loop:add_reader(First, Read, 1),
    ok = tokamak_loop:remove_reader(First, Read),
    ok = tokamak_loop:add_reader(Second, Read, 2),
    ?assertEqual([[0, 0], [1, 0]], [watched(First), watched(Second)]),
    ok = tokamak_loop:destroy(Second),
    ok = tokamak_loop:add_reader(First, Read, 3),
    ?assertEqual([1, 0], watched(First)),
    {ok, 1} = tokamak_fd:write(Write, "x"),
    ?assertEqual([{3, read, undefined}], tokamak_loop:poll(First, 5000)),
    Reference = tokamak_loop:register(First, 3, self()),
    ok = told(Reference, 3, read).

told(Reference, Id, Type) ->
    receive
        {tokamak, Reference, {event, Id, Type, undefined}} -> ok
    after 5000 -> erlang:error({not_told, Id, Type})
    end.

renamed(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    {ok, 1} = tokamak_fd:write(Write, "x"),
    ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
    ok = tokamak_loop:add_reader(Loop, Read, 2),
    ?assertEqual([{2, read, undefined}], tokamak_loop:poll(Loop, 5000)),
    _ = tokamak_loop:register(Loop, 1, self()),
    ok = nothing_comes(?A_WHILE),
    ok = told(tokamak_loop:register(Loop, 2, self()), 2, read),
    ok = tokamak_loop:unregister(Loop, 1),
    ok = tokamak_loop:unregister(Loop, 2),
    ?assertEqual([{2, read, undefined}], tokamak_loop:poll(Loop, 5000)).

watched_anew(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    {ok, 1} = tokamak_fd:write(Write, "x"),
    _ = tokamak_loop:poll(Loop, 5000),
    ok = tokamak_loop:remove_reader(Loop, Read),
    ok = tokamak_loop:add_reader(Loop, Read, 2),
    ?assertEqual([{2, read, undefined}], tokamak_loop:poll(Loop, 5000)),
    ok = told(tokamak_loop:register(Loop, 2, self()), 2, read),
    ?assertEqual([1, 0], watched(Loop)).

both_directions(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    ok = tokamak_loop:add_writer(Loop, Write, 1),
    {ok, 1} = tokamak_fd:write(Write, "x"),
    polled(Loop, [read, write]),
    Reference = tokamak_loop:register(Loop, 1, self()),
    [ok = told(Reference, 1, Type) || Type <- [read, write]],
    ok = nothing_comes(0).

polled(_Loop, []) ->
    ok;
polled(Loop, Types) ->
    Events = tokamak_loop:poll(Loop, 5000),
    ?assertNotEqual([], Events),
    polled(Loop, Types -- [Type || {1, Type, undefined} <- Events]).

closed(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    {ok, 1} = tokamak_fd:write(Write, "x"),
    ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
    ok = tokamak_fd:close(Read),
    _ = tokamak_loop:register(Loop, 1, self()),
    ok = nothing_comes(?A_WHILE).

%% Many ids

death(Backend) ->
    {Loop, Handler, Pipes} = told_handler(Backend),
    [ok = tokamak_loop:post(Loop, ?MANY + 1, user, N) || N <- [1, 2, 3]],
    ok = kill(Handler),
    tokamak_test:wait_for(0, fun() -> maps:get(handlers, tokamak_loop:info(Loop)) end),
    [ok = tokamak_loop:post(Loop, Id, user, late) || Id <- maps:keys(Pipes)],
    {Users, []} = poll_all(Loop, Pipes, []),
    Rest = tokamak_test:collect(Loop, ?MANY + 3 - length(Users)),
    ?assertEqual([{?MANY + 1, user, N} || N <- [1, 2, 3]], lists:sublist(Users ++ Rest, 3)),
    ?assertEqual([{Id, user, late} || Id <- lists:sort(maps:keys(Pipes))], lists:sort(lists:nthtail(3, Users ++ Rest))),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)),
    ?assertMatch(#{queued := 0, readers := ?MANY}, tokamak_loop:info(Loop)),
    [ok = tokamak_fd:close(Read) || {Read, _} <- maps:values(Pipes)],
    ?assertEqual([0, 0], watched(Loop)).

%% A handler of many ids that was sent a part of what its descriptors have, and does nothing about it.
told_handler(Backend) ->
    Loop = new_loop(#{backend => Backend, max_queue => 10 * ?MANY}),
    Handler = spawn_process(fun() -> none end),
    Pipes = maps:from_list(lists:enumerate([pipe() || _ <- lists:seq(1, ?MANY)])),
    maps:foreach(fun(Id, {Read, _}) -> ok = tokamak_loop:add_reader(Loop, Read, Id) end, Pipes),
    _ = [tokamak_loop:register(Loop, Id, Handler) || Id <- maps:keys(Pipes)],
    maps:foreach(fun(_, {_, Write}) -> {ok, 1} = tokamak_fd:write(Write, "x") end, Pipes),
    tokamak_test:wait_until(fun() -> mailbox_length(Handler) >= 1024 end),
    {Loop, Handler, Pipes}.

%% Polls until each descriptor was told of and read; other events come back.
poll_all(_Loop, Left, Others) when map_size(Left) =:= 0 ->
    {Others, []};
poll_all(Loop, Left, Others) ->
    Events = tokamak_loop:poll(Loop, 5000),
    ?assertNotEqual([], Events),
    Told = [Id || {Id, read, undefined} <- Events],
    [{ok, <<"x">>} = tokamak_fd:read(element(1, maps:get(Id, Left)), 10) || Id <- Told],
    poll_all(Loop, maps:without(Told, Left), Others ++ [Event || {_, user, _} = Event <- Events]).

death_of_one(Backend) ->
    {Loop, Handler, Pipes} = told_handler(Backend),
    _ = tokamak_loop:register(Loop, ?MANY + 1, self()),
    Poller = spawn_process(fun() -> none end),
    Test = self(),
    _ = spawn_link(fun() ->
        tokamak_test:wait_until(fun() -> is_waiting_in_poll(Poller) end),
        ok = kill(Handler),
        Test ! killed
    end),
    ?assertEqual({[], []}, ask(Poller, fun(_) -> poll_all(Loop, Pipes, []) end)),
    receive killed -> ok end,
    ok = nothing_comes(0).

is_waiting_in_poll(Pid) ->
    [{status, Status}, {current_function, {Module, _, _}}] = process_info(Pid, [status, current_function]),
    Status =:= waiting andalso Module =:= tokamak_loop.

next_handler(Backend) ->
    {Loop, Handler, Pipes} = told_handler(Backend),
    ok = kill(Handler),
    tokamak_test:wait_for(0, fun() -> maps:get(handlers, tokamak_loop:info(Loop)) end),
    References = [{Id, tokamak_loop:register(Loop, Id, self())} || Id <- maps:keys(Pipes)],
    [ok = told(Reference, Id, read) || {Id, Reference} <- References],
    ok = nothing_comes(0),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)).

overdue(Backend) ->
    Loop = new_loop(Backend),
    #{owner := Process} = tokamak_loop:info(Loop),
    [Reference, _] = [tokamak_loop:register(Loop, Id, self()) || Id <- [1, 2]],
    {Read, Write} = pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 3),
    {ok, 1} = tokamak_fd:write(Write, "x"),
    tokamak_test:wait_for(1, fun() -> maps:get(queued, tokamak_loop:info(Loop)) end),
    ok = tokamak_test:settled(Loop),
    true = erlang:suspend_process(Process),
    Leaver = spawn_link(fun() -> ok = tokamak_loop:unregister(Loop, 2) end),
    tokamak_test:wait_until(fun() -> mailbox_length(Process) =:= 1 end),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    true = erlang:resume_process(Process),
    ok = tokamak_test:wait_for_end(Leaver),
    ok = told(Reference, 1, read).

%% Many ids with events that wait for pollers

-define(OTHER, 1_000_000).

%% A loop that dispatches, as it has a handler, with three events of each id parked.
loop_with_posts(Backend) ->
    Loop = dispatching_loop(Backend),
    [ok = tokamak_loop:post(Loop, Id, user, N) || {Id, N} <- posts()],
    ok = parked(Loop, length(posts())),
    Loop.

dispatching_loop(Backend) ->
    Loop = new_loop(#{backend => Backend, max_queue => 100_000}),
    _ = tokamak_loop:register(Loop, ?OTHER, self()),
    Loop.

parked(Loop, Count) ->
    tokamak_test:wait_for(Count, fun() -> maps:get(queued, tokamak_loop:info(Loop)) end),
    tokamak_test:settled(Loop).

%% Ids in no order.
shuffled(Ids) ->
    [Id || {_, Id} <- lists:sort([{erlang:phash2(Id), Id} || Id <- Ids])].

posts_parked(Backend) ->
    Loop = loop_with_posts(Backend),
    Ids = shuffled([Id || Id <- lists:seq(1, ?MANY), Id rem 3 > 0]),
    [?assertEqual([1, 2, 3], taken_by_handler(Loop, Id)) || Id <- Ids],
    Left = [{Id, user, N} || {Id, N} <- posts(), Id rem 3 =:= 0],
    ?assertEqual(Left, tokamak_test:collect(Loop, length(Left))),
    ok = parked(Loop, 0).

taken_by_handler(Loop, Id) ->
    Reference = tokamak_loop:register(Loop, Id, self()),
    [{Reference, Id, First}, {Reference, Id, Second}, {Reference, Id, Third}] = take(3),
    [First, Second, Third].

%% Between handlers a poller takes what is oldest, and more is parked.
posts_polled(Backend) ->
    Loop = loop_with_posts(Backend),
    Ids = shuffled(lists:seq(1, ?MANY)),
    {First, Second} = lists:split(?MANY div 3, Ids),
    _ = [tokamak_loop:register(Loop, Id, self()) || Id <- First],
    Polled = tokamak_loop:poll(Loop, 5000),
    [ok = tokamak_loop:post(Loop, Id, user, 4) || Id <- Second],
    _ = [tokamak_loop:register(Loop, Id, self()) || Id <- Second],
    Expected = [{Id, N} || {Id, N} <- posts()] ++ [{Id, 4} || Id <- Second],
    Handled = [
        receive
            {tokamak, _, {event, Id, user, N}} -> {Id, N}
        after 5000 -> none
        end
     || _ <- lists:nthtail(length(Polled), Expected)
    ],
    All = [{Id, N} || {Id, user, N} <- Polled] ++ Handled,
    ?assertEqual(lists:sort(Expected), lists:sort(All)),
    [?assertEqual([1, 2, 3, 4], [N || {Of, N} <- All, Of =:= Id]) || Id <- lists:sublist(Second, 10)],
    ok = parked(Loop, 0).

descriptors_parked(Backend) ->
    Loop = dispatching_loop(Backend),
    Pipes = lists:enumerate([pipe() || _ <- lists:seq(1, ?MANY)]),
    [ok = tokamak_loop:add_reader(Loop, Read, Id) || {Id, {Read, _}} <- Pipes],
    [{ok, 1} = tokamak_fd:write(Write, "x") || {_, {_, Write}} <- Pipes],
    ok = parked(Loop, ?MANY),
    Latest = fun(Id) -> ?MANY + Id end,
    {Renamed, Others} = lists:partition(fun({Id, _}) -> Id rem 3 =:= 0 end, Pipes),
    %% Half of them before their handler comes, half afterwards.
    {Before, After} = lists:partition(fun({Id, _}) -> Id rem 2 =:= 0 end, Renamed),
    [ok = tokamak_loop:add_reader(Loop, Read, Latest(Id)) || {Id, {Read, _}} <- Before],
    References = [{Latest(Id), tokamak_loop:register(Loop, Latest(Id), self())} || {Id, _} <- Renamed],
    [ok = tokamak_loop:add_reader(Loop, Read, Latest(Id)) || {Id, {Read, _}} <- After],
    [ok = told(Reference, Id, read) || {Id, Reference} <- References],
    _ = [tokamak_loop:register(Loop, Id, self()) || {Id, _} <- Renamed],
    ok = nothing_comes(0),
    ?assertEqual({[], []}, poll_all(Loop, maps:from_list(Others), [])),
    ok = parked(Loop, 0).

outlived(Backend) ->
    Loop = dispatching_loop(Backend),
    {Read, Write} = pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 5),
    {ok, 1} = tokamak_fd:write(Write, "x"),
    ok = parked(Loop, 1),
    _ = tokamak_loop:register(Loop, 7, self()),
    ok = tokamak_loop:add_reader(Loop, Read, 6),
    ok = tokamak_loop:remove_reader(Loop, Read),
    Reference = tokamak_loop:register(Loop, 6, self()),
    ok = tokamak_loop:add_reader(Loop, Read, 6),
    ok = told(Reference, 6, read),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)),
    ok = parked(Loop, 0).

%% Many ids of a handler that lags

ids_go() ->
    {Loop, Handler, References, Sent} = lagging_handler(),
    [ok = tokamak_loop:unregister(Loop, Id) || Id <- lists:seq(2, ?MANY, 2)],
    Expected = [{maps:get(Id, References), Id, N} || {Id, N} <- lists:nthtail(Sent, posts()), Id rem 2 =:= 1],
    ?assertEqual(length(Expected), maps:get(queued, tokamak_loop:info(Loop))),
    _ = take(Handler, Sent),
    ?assertEqual(Expected, take(Handler, length(Expected))),
    tokamak_test:wait_for(0, fun() -> maps:get(queued, tokamak_loop:info(Loop)) end),
    ok = kill(Handler).

ids_taken_over() ->
    {Loop, Handler, References, Sent} = lagging_handler(),
    Next = spawn_process(fun() -> none end),
    Taken = maps:from_list([{Id, tokamak_loop:register(Loop, Id, Next)} || Id <- lists:seq(2, ?MANY, 2)]),
    Left = lists:nthtail(Sent, posts()),
    Expected = [{maps:get(Id, References), Id, N} || {Id, N} <- Left, Id rem 2 =:= 1],
    Moved = [{maps:get(Id, Taken), Id, N} || {Id, N} <- Left, Id rem 2 =:= 0],
    ?assertEqual(lists:sort(Moved), lists:sort(take(Next, length(Moved)))),
    _ = take(Handler, Sent),
    ?assertEqual(Expected, take(Handler, length(Expected))),
    tokamak_test:wait_for(0, fun() -> maps:get(queued, tokamak_loop:info(Loop)) end),
    [ok = kill(Pid) || Pid <- [Handler, Next]].

%% A handler with more events than it is sent before it takes some; with how many it was sent.
lagging_handler() ->
    Loop = new_loop(#{max_queue => 100_000}),
    Handler = spawn_process(fun() -> none end),
    References = maps:from_list([{Id, tokamak_loop:register(Loop, Id, Handler)} || Id <- lists:seq(1, ?MANY)]),
    [ok = tokamak_loop:post(Loop, Id, user, N) || {Id, N} <- posts()],
    tokamak_test:wait_until(fun() -> mailbox_length(Handler) =:= 2048 end),
    ok = tokamak_test:settled(Loop),
    {Loop, Handler, References, 2048}.

posts() ->
    [{Id, N} || N <- [1, 2, 3], Id <- lists:seq(1, ?MANY)].

%% What comes first to a process.
take(Pid, Count) ->
    ask(Pid, fun(_) -> take(Count) end).

take(0) ->
    [];
take(Count) ->
    receive
        {tokamak, Reference, {event, Id, user, N}} -> [{Reference, Id, N} | take(Count - 1)]
    after 5000 -> erlang:error({events_missing, Count})
    end.
