%% SPDX-License-Identifier: Apache-2.0
%% No descriptor is left: what needs one says so, what is open works on, and when there are some again all is as
%% before. In a VM of its own that may have few.
-module(tokamak_exhaustion_tests).

-include_lib("eunit/include/eunit.hrl").

-export([without_descriptors/0, device_without_descriptors/0, subprocess_without_descriptors/0]).

-define(LIMIT, 160).

exhaustion_test_() ->
    tokamak_test:cases(60, [
        {"without a descriptor nothing is opened, and what is open works on", fun() -> in_peer(without_descriptors) end},
        {"a terminal that cannot be looked at is not taken for a file", fun() -> in_peer(device_without_descriptors) end},
        {"without a descriptor no subprocess starts, and the next one does", fun() ->
            in_peer(subprocess_without_descriptors)
        end}
    ]).

in_peer(Function) ->
    Command = lists:flatten(io_lib:format("ulimit -n ~b; exec erl \"$@\"", [?LIMIT])),
    Peer = tokamak_test:start_peer(#{exec => {os:find_executable("sh"), ["-c", Command, "sh"]}}),
    ?assertEqual(ok, peer:call(Peer, ?MODULE, Function, [], 30_000)),
    ok = peer:stop(Peer).

%% @doc In the other VM.
without_descriptors() ->
    {ok, _} = application:ensure_all_started(tokamak),
    {ok, Loop} = tokamak_loop:new(),
    {ok, Read, Write} = tokamak_fd:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    %% Loading code takes a descriptor, too.
    ok = works(Loop, Read, Write),
    Before = tokamak_test:open_files(),
    Taken = take_all(),
    [
        {error, emfile} = Open()
     || Open <- [
            fun() -> tokamak_fd:open("/dev/null", [read]) end,
            fun tokamak_fd:pipe/0,
            fun() -> tokamak_fd:from_integer(0) end,
            fun() -> tokamak_loop:new() end,
            fun() -> tokamak_loop:open(#{}) end
        ]
    ],
    ok = works(Loop, Read, Write),
    ok = give_back(Taken),
    tokamak_test:wait_for(Before, fun tokamak_test:open_files/0),
    {ok, Another} = tokamak_loop:new(),
    ok = tokamak_loop:destroy(Another),
    ok = works(Loop, Read, Write),
    ok = application:stop(tokamak).

%% @doc In the other VM. Whether a device can be watched is asked by a second descriptor.
device_without_descriptors() ->
    {ok, _} = application:ensure_all_started(tokamak),
    {ok, Loop} = tokamak_loop:new(),
    [First, Second | Taken] = take_all(),
    ok = tokamak_fd:close(First),
    {error, emfile} = tokamak_fd:open("/dev/ptmx", [read, write]),
    ok = tokamak_fd:close(Second),
    {ok, Terminal} = tokamak_fd:open("/dev/ptmx", [read, write]),
    ok = tokamak_loop:add_reader(Loop, Terminal, 1),
    ok = give_back([Terminal | Taken]),
    ok = application:stop(tokamak).

%% @doc In the other VM.
subprocess_without_descriptors() ->
    {ok, _} = application:ensure_all_started(tokamak),
    {ok, #{status := 0}} = tokamak_subprocess:run(["true"]),
    Before = tokamak_test:open_files(),
    Taken = take_all(),
    {error, emfile} = tokamak_subprocess:run(["true"]),
    ok = give_back(Taken),
    tokamak_test:wait_for(Before, fun tokamak_test:open_files/0),
    {ok, #{status := 0, stdout := <<"x\n">>}} = tokamak_subprocess:run(["echo", "x"]),
    tokamak_test:wait_for(Before, fun tokamak_test:open_files/0),
    ok = application:stop(tokamak).

take_all() ->
    %% Loading code takes a descriptor, too.
    {ok, Null} = tokamak_fd:open("/dev/null", [read]),
    ok = tokamak_fd:close(Null),
    take_all([]).

take_all(Taken) ->
    case tokamak_fd:from_integer(0) of
        {ok, Fd} -> take_all([Fd | Taken]);
        {error, emfile} -> Taken
    end.

give_back(Taken) ->
    true = length(Taken) > 10,
    lists:foreach(fun(Fd) -> ok = tokamak_fd:close(Fd) end, Taken).

%% A call, a timer and a descriptor.
works(Loop, Read, Write) ->
    {ok, _} = tokamak:call(sleep, [1]),
    Timer = tokamak_loop:start_timer(Loop, 1, 2),
    [{2, timer, Timer}] = tokamak_loop:poll(Loop, 5000),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    [{1, read, undefined}] = tokamak_loop:poll(Loop, 5000),
    {ok, <<"x">>} = tokamak_fd:read(Read, 10),
    ok.
