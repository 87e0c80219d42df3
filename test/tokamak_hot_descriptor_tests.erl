%% SPDX-License-Identifier: Apache-2.0
%% Descriptors that are ready all the time. Since OTP 28 the VM takes one that was selected ten times in a row
%% from its poll thread to the schedulers: nothing of it may show.
-module(tokamak_hot_descriptor_tests).

-include_lib("eunit/include/eunit.hrl").

-import(tokamak_test, [new_loop/1, repeat/2]).

%% Well beyond the number of selects that make a descriptor hot.
-define(ROUNDS, 100).

hot_descriptors_test_() ->
    tokamak_test:with_application([
        tokamak_test:cases([{"the VM polls it as the OTP says", fun polled_by_schedulers/0}]),
        tokamak_test:on_backends([
            {"is told of each byte once", fun each_byte_once/1},
            {"may be read by any process", fun read_by_others/1},
            {"may be closed, and its number used again", fun closed/1},
            {"may go to another loop and come back", fun moved/1},
            {"survives its loop", fun loops_end/1},
            {"closes with its owner", fun owners_end/1}
        ])
    ]).

polled_by_schedulers() ->
    Loop = new_loop(select),
    {Read, Write} = tokamak_test:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    Before = polled_by_schedulers_count(),
    rounds(Loop, Read, Write),
    Moved = list_to_integer(erlang:system_info(otp_release)) >= 28,
    ?assertEqual(Moved, polled_by_schedulers_count() > Before).

%% The set without poll threads is the schedulers', beside the one for what the kernel's way cannot watch.
polled_by_schedulers_count() ->
    lists:sum([
        proplists:get_value(total_poll_set_size, Set)
     || Set <- erlang:system_info(check_io),
        proplists:get_value(poll_threads, Set) =:= 0,
        proplists:get_value(kernel_poll, Set) =/= false
    ]).

each_byte_once(Backend) ->
    {Loop, Read, Write} = hot(Backend),
    repeat(50, fun() -> rounds(Loop, Read, Write) end),
    ?assertEqual([], tokamak_loop:poll(Loop, 50)).

read_by_others(Backend) ->
    {Loop, Read, Write} = hot(Backend),
    repeat(?ROUNDS, fun() ->
        {ok, 1} = tokamak_fd:write(Write, <<"x">>),
        ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
        tokamak_test:in_process(fun() -> ?assertEqual({ok, <<"x">>}, tokamak_fd:read(Read, 2)) end)
    end),
    ?assertEqual([], tokamak_loop:poll(Loop, 50)).

closed(Backend) ->
    %% A process that has had a descriptor stays an owner.
    {Loop, _, _} = hot(Backend),
    Before = tokamak_test:resources(),
    repeat(20, fun() ->
        {ok, Read, Write} = tokamak_fd:pipe(),
        ok = tokamak_loop:add_reader(Loop, Read, 1),
        rounds(Loop, Read, Write),
        %% With an event on its way.
        {ok, 1} = tokamak_fd:write(Write, <<"x">>),
        ok = tokamak_fd:close(Read),
        ok = tokamak_fd:close(Write),
        ?assertEqual([], tokamak_loop:poll(Loop, 0))
    end),
    tokamak_test:given_back(Before).

moved(Backend) ->
    {Loop, Read, Write} = hot(Backend),
    Other = new_loop(Backend),
    repeat(10, fun() ->
        ok = tokamak_loop:remove_reader(Loop, Read),
        ok = tokamak_loop:add_reader(Other, Read, 1),
        rounds(Other, Read, Write),
        ok = tokamak_loop:remove_reader(Other, Read),
        ok = tokamak_loop:add_reader(Loop, Read, 1),
        rounds(Loop, Read, Write)
    end).

loops_end(Backend) ->
    {Read, Write} = tokamak_test:pipe(),
    repeat(10, fun() ->
        Loop = new_loop(Backend),
        ok = tokamak_loop:add_reader(Loop, Read, 1),
        rounds(Loop, Read, Write),
        ok = tokamak_loop:destroy(Loop)
    end).

owners_end(Backend) ->
    Loop = new_loop(Backend),
    Before = tokamak_test:resources(),
    repeat(10, fun() ->
        tokamak_test:in_process(fun() ->
            {Read, Write} = tokamak_test:pipe(),
            ok = tokamak_loop:add_reader(Loop, Read, 1),
            rounds(Loop, Read, Write)
        end),
        tokamak_test:given_back(Before),
        %% When the write end closed first, that was an event.
        _ = tokamak_loop:poll(Loop, 0)
    end).

%% A loop and a pipe that it watches, hot already.
hot(Backend) ->
    Loop = new_loop(Backend),
    {Read, Write} = tokamak_test:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    rounds(Loop, Read, Write),
    {Loop, Read, Write}.

rounds(Loop, Read, Write) ->
    repeat(?ROUNDS, fun() ->
        {ok, 1} = tokamak_fd:write(Write, <<"x">>),
        ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
        ?assertEqual({ok, <<"x">>}, tokamak_fd:read(Read, 2))
    end).
