%% SPDX-License-Identifier: Apache-2.0
%% @doc What the machine is, and what the VM uses of it.
-module(bench_system).

-export([description/0, usage/0, used_since/1, resident/0, descriptors/0, max_descriptors/0]).
-export_type([usage/0]).

-type usage() :: #{
    user := non_neg_integer(),
    system := non_neg_integer(),
    voluntary_switches := non_neg_integer(),
    involuntary_switches := non_neg_integer(),
    minor_faults := non_neg_integer(),
    major_faults := non_neg_integer(),
    peak_rss := non_neg_integer()
}.
%% Times are microseconds, memory is kilobytes.

%% @doc What to know about the machine to judge the numbers.
-spec description() -> #{atom() => binary() | number() | null}.
description() ->
    #{
        time => list_to_binary(calendar:system_time_to_rfc3339(erlang:system_time(second))),
        otp => list_to_binary(erlang:system_info(otp_release)),
        tokamak => version(),
        cores => cores(),
        schedulers => erlang:system_info(schedulers_online),
        processor => processor(),
        kernel => kernel(),
        load => load()
    }.

version() ->
    {ok, Version} = application:get_key(tokamak, vsn),
    list_to_binary(Version).

cores() ->
    case erlang:system_info(logical_processors) of
        unknown -> null;
        Cores -> Cores
    end.

kernel() ->
    {Family, Name} = os:type(),
    {Major, Minor, Patch} = os:version(),
    iolist_to_binary(io_lib:format("~s/~s ~b.~b.~b", [Family, Name, Major, Minor, Patch])).

processor() ->
    find("/proc/cpuinfo", "model name\\s*:\\s*(.*)", <<"unknown">>).

%% The load average of the last minute: on a busy machine the numbers mean little.
load() ->
    binary_to_float(find("/proc/loadavg", "^([0-9.]+)", <<"0.0">>)).

%% @doc How many descriptors the VM has open.
-spec descriptors() -> non_neg_integer().
descriptors() ->
    {ok, Names} = file:list_dir("/proc/self/fd"),
    length(Names).

%% @doc How many descriptors the VM may open.
-spec max_descriptors() -> non_neg_integer().
max_descriptors() ->
    binary_to_integer(find("/proc/self/limits", "Max open files\\s+([0-9]+)", <<"1024">>)).

find(File, Pattern, Default) ->
    case read(File) of
        {ok, Text} ->
            case re:run(Text, Pattern, [multiline, {capture, all_but_first, binary}]) of
                {match, [Found]} -> Found;
                nomatch -> Default
            end;
        {error, _} ->
            Default
    end.

%% Files in /proc have no size, so that file:read_file/1 needs several reads; raw is one.
read(File) ->
    case file:open(File, [read, raw, binary]) of
        {ok, Device} ->
            Result = file:read(Device, 65536),
            ok = file:close(Device),
            Result;
        Error ->
            Error
    end.

%% @doc The memory that the VM has now, in kilobytes.
-spec resident() -> non_neg_integer().
resident() ->
    status("VmRSS").

%% @doc What was used until now. The peak of the memory is counted from here on, where the system can.
-spec usage() -> usage().
usage() ->
    _ = file:write_file("/proc/self/clear_refs", "5", [raw]),
    counters().

%% @doc What was used since.
-spec used_since(usage()) -> usage().
used_since(Before) ->
    After = counters(),
    Peak = status("VmHWM"),
    Difference = maps:map(fun(Key, Value) -> Value - maps:get(Key, Before) end, After),
    Difference#{peak_rss := Peak}.

status(Key) ->
    binary_to_integer(find("/proc/self/status", Key ++ ":\\s*([0-9]+)", <<"0">>)).

counters() ->
    {User, System, Voluntary, Involuntary, Minor, Major} = tokamak_bench_nif:resource_usage(),
    #{
        user => User,
        system => System,
        voluntary_switches => Voluntary,
        involuntary_switches => Involuntary,
        minor_faults => Minor,
        major_faults => Major,
        peak_rss => 0
    }.
