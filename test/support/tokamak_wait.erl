%% SPDX-License-Identifier: Apache-2.0
%% Waiting for conditions, and looking at operating system processes.
-module(tokamak_wait).

-export([until/1, until/2, is_running/1, children/1, with_argument/1, open_files/0, resident_kib/0, kill_spawner/0]).

%% Waits until the condition holds.
until(Condition) ->
    tokamak_test:wait_until(Condition).

until(Condition, Timeout) ->
    tokamak_test:wait_until(Condition, Timeout).

%% Whether a process of the system runs; a zombie does not.
is_running(OsPid) ->
    case state(OsPid) of
        gone -> false;
        State -> State =/= $Z
    end.

state(OsPid) ->
    case stat(OsPid) of
        [<<State, _/binary>> | _] -> State;
        gone -> gone
    end.

%% The fields of /proc/PID/stat after the name, which may hold anything.
stat(OsPid) ->
    case file:read_file("/proc/" ++ integer_to_list(OsPid) ++ "/stat") of
        {ok, Stat} ->
            {Last, _} = lists:last(binary:matches(Stat, <<")">>)),
            binary:split(binary_part(Stat, Last + 2, byte_size(Stat) - Last - 2), <<" ">>, [global]);
        {error, _} ->
            gone
    end.

%% The children of a process of the system, zombies included.
children(OsPid) ->
    {ok, Names} = file:list_dir("/proc"),
    Parent = integer_to_binary(OsPid),
    [
        list_to_integer(Name)
     || Name <- Names,
        lists:all(fun(C) -> C >= $0 andalso C =< $9 end, Name),
        [_, P | _] <- [stat(list_to_integer(Name))],
        P =:= Parent
    ].

%% The processes that run with this argument.
with_argument(Argument) ->
    {ok, Names} = file:list_dir("/proc"),
    [
        list_to_integer(Name)
     || Name <- Names,
        {ok, Line} <- [file:read_file(filename:join(["/proc", Name, "cmdline"]))],
        lists:member(iolist_to_binary(Argument), binary:split(Line, <<0>>, [global])),
        is_running(list_to_integer(Name))
    ].

%% Kills the helper program of all subprocesses.
kill_spawner() ->
    {ok, Spawner, _} = tokamak_nif:subprocess_spawner(),
    [] = os:cmd("kill -9 " ++ integer_to_list(Spawner)),
    ok.

%% The descriptors that this VM has open.
open_files() ->
    {ok, Names} = file:list_dir("/proc/self/fd"),
    length(Names).

%% The memory of this VM, in KiB.
resident_kib() ->
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [Kib]} = re:run(Status, "VmRSS:\\s+([0-9]+)", [{capture, all_but_first, list}]),
    list_to_integer(Kib).
