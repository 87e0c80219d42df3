%% SPDX-License-Identifier: Apache-2.0
%% With nothing to do no thread of tokamak wakes, however much is watched and set.
-module(tokamak_idle_tests).

-include_lib("eunit/include/eunit.hrl").

-import(tokamak_test, [new_loop/1]).

-define(SECONDS, 10).
%% Descriptors and timers for each backend; as many descriptors as the limit of the VM allows.
-define(MANY, 10_000).
-define(FAR, 3_600_000).
%% Descriptors that are left for everything else.
-define(SPARE, 500).

idle_test_() ->
    tokamak_test:with_application(
        tokamak_test:cases(120, [
            {"10 idle seconds cost no thread of ours a context switch, and all is given back", fun idle/0}
        ])
    ).

%% One window for both backends, each with an unread byte that a poller and a handler were told of.
idle() ->
    tokamak_test:with_directory(fun(Directory) ->
        %% Open for both ends it never hangs up, and each opening takes one descriptor.
        Fifo = filename:join(Directory, "fifo"),
        "" = os:cmd("mkfifo " ++ Fifo),
        idle(Fifo)
    end).

idle(Fifo) ->
    Before = tokamak_test:resources(),
    Loops = [
        {new_loop(#{backend => Backend}), Count}
     || {Backend, Count} <- lists:zip([native, select], descriptors())
    ],
    Watched = [{Loop, watch_many(Loop, Fifo, Count)} || {Loop, Count} <- Loops],
    Unread = [unread(Loop) || {Loop, _} <- Loops],
    _ = [tokamak_loop:start_timer(Loop, ?FAR + N, 1) || {Loop, _} <- Loops, N <- lists:seq(1, ?MANY)],
    [
        begin
            ?assertMatch(#{timers := ?MANY, readers := N} when N =:= Count + 2, tokamak_loop:info(Loop)),
            ?debugFmt("~b descriptors and ~b timers", [Count, ?MANY])
        end
     || {Loop, Count} <- Loops
    ],
    ok = nothing_happens([Loop || {Loop, _} <- Loops]),
    [ok = remove(Loop, Fds) || {Loop, Fds} <- Watched],
    [?assertMatch(#{readers := 2}, tokamak_loop:info(Loop)) || {Loop, _} <- Loops],
    [ok = tokamak_fd:close(Fd) || Fds <- Unread, Fd <- Fds],
    [?assertMatch(#{readers := 0}, tokamak_loop:info(Loop)) || {Loop, _} <- Loops],
    [ok = tokamak_loop:destroy(Loop) || {Loop, _} <- Loops],
    %% This process is an owner since it opened descriptors.
    tokamak_test:given_back(maps:update_with(owners, fun(N) -> N + 1 end, Before)).

%% How many for the native backend, and how many for the other.
descriptors() ->
    Free = tokamak_test:file_limit() - tokamak_test:open_files() - ?SPARE,
    Native = min(?MANY, 2 * Free div 3),
    [Native, min(?MANY, Free - Native)].

watch_many(Loop, Fifo, Count) ->
    [
        begin
            {ok, Fd} = tokamak_fd:open(Fifo, [read, write]),
            ok = tokamak_loop:add_reader(Loop, Fd, Id),
            Fd
        end
     || Id <- lists:seq(1, Count)
    ].

%% Descriptors with a byte that nobody reads, one told to a poller and one to a handler.
unread(Loop) ->
    [Polled, Handled] = [1_000_001, 1_000_002],
    Pipes = [
        begin
            {Read, Write} = tokamak_test:pipe(),
            {ok, 1} = tokamak_fd:write(Write, <<"x">>),
            ok = tokamak_loop:add_reader(Loop, Read, Id),
            [Read, Write]
        end
     || Id <- [Polled, Handled]
    ],
    Reference = tokamak_loop:register(Loop, Handled, self()),
    receive
        {tokamak, Reference, {event, Handled, read, undefined}} -> ok
    after 5000 -> erlang:error(no_event)
    end,
    ?assertEqual([{Polled, read, undefined}], tokamak_loop:poll(Loop, 5000)),
    lists:append(Pipes).

nothing_happens(Loops) ->
    true = erlang:garbage_collect(),
    Threads = tokamak_test:threads("tokamak-"),
    ?assertNotEqual([], [T || {_, "tokamak-timers"} = T <- Threads]),
    ?assertNotEqual([], [T || {_, "tokamak-reactor"} = T <- Threads]),
    ok = settle(Threads),
    Pushed = [maps:get(pushed, tokamak_loop:info(Loop)) || Loop <- Loops],
    Switches = switches(Threads),
    Cpu = tokamak_test:own_cpu_ticks(),
    ok = tokamak_test:nothing_comes(?SECONDS * 1000),
    Used = tokamak_test:own_cpu_ticks() - Cpu,
    Compared = lists:zip3(Threads, Switches, switches(Threads)),
    ?assertEqual([], [{Name, From, To} || {{_, Name}, From, To} <- Compared, From =/= To]),
    ?assertEqual(Pushed, [maps:get(pushed, tokamak_loop:info(Loop)) || Loop <- Loops]),
    ?debugFmt("the whole VM used ~b ms in ~b s", [10 * Used, ?SECONDS]),
    %% What the VM and its test need; a spinning descriptor would take a second for each second.
    ?assert(Used < 100),
    ok.

switches(Threads) ->
    [tokamak_test:switches(Thread) || {Thread, _} <- Threads].

%% Waits until what was set up has been done: no switch for a tenth of a second.
settle(Threads) ->
    Before = switches(Threads),
    ok = tokamak_test:nothing_comes(100),
    case switches(Threads) of
        Before -> ok;
        _ -> settle(Threads)
    end.

%% By hand and by closing.
remove(Loop, Fds) ->
    {Removed, _} = lists:split(length(Fds) div 2, Fds),
    [ok = tokamak_loop:remove_reader(Loop, Fd) || Fd <- Removed],
    [ok = tokamak_fd:close(Fd) || Fd <- Fds],
    ok.
