%% SPDX-License-Identifier: Apache-2.0
%% What a VM has, before and after the abuse, and how much more it may have.
-module(tokamak_soak_table).

-export([measure/1, settle/3, print/1]).

-define(MIB, (1 bsl 20)).
%% How often the end is looked at, in milliseconds.
-define(INTERVAL, 200).

%% How much more there may be afterwards. Allocators keep memory, and what is killed in the middle of loading leaves
%% atoms; everything else is back to the start.
tolerances() ->
    [
        {processes, 0},
        {ports, 0},
        {ets_tables, 0},
        {descriptors, 0},
        {threads, 0},
        {native_threads, 0},
        {system_processes, 0},
        {in_flight, 0},
        {loops, 0},
        {fds, 0},
        {owners, 0},
        {subprocesses, 0},
        {progress_keys, 0},
        {subscribers, 0},
        {atoms, 100},
        {erlang_memory, 8 * ?MIB},
        {resident_memory, 64 * ?MIB}
    ].

%% @doc Counts it all, once everything that lives as long as the application is there.
measure(File) ->
    {ok, _} = application:ensure_all_started(tokamak),
    ok = tokamak_soak_loads:touch(File),
    count().

count() ->
    _ = [erlang:garbage_collect(Pid) || Pid <- processes()],
    %% Asked for the first time, it makes atoms.
    _ = erlang:memory(),
    maps:merge(of_vm(), of_library()).

of_vm() ->
    #{
        processes => erlang:system_info(process_count),
        ports => erlang:system_info(port_count),
        ets_tables => length(ets:all()),
        descriptors => tokamak_test:open_files(),
        threads => length(tokamak_test:threads("")),
        native_threads => length(tokamak_test:threads("tokamak")),
        system_processes => length(descendants(list_to_integer(os:getpid()))),
        atoms => erlang:system_info(atom_count),
        erlang_memory => erlang:memory(total),
        resident_memory => tokamak_test:rss()
    }.

of_library() ->
    Stats = maps:with([in_flight, loops, fds, owners, subprocesses], tokamak:stats()),
    #{keys := Keys, subscribers := Subscribers} = tokamak_progress:stats(),
    Stats#{progress_keys => Keys, subscribers => Subscribers}.

descendants(OsPid) ->
    Children = tokamak_wait:children(OsPid),
    Children ++ lists:append([descendants(Child) || Child <- Children]).

%% @doc Measures until all is back to the start, or so much time has passed: the last measures, and what has grown.
settle(File, Before, Milliseconds) ->
    %% Once: threads of blocking calls end when they had none for ten seconds.
    _ = measure(File),
    settle_until(Before, erlang:monotonic_time(millisecond) + Milliseconds).

settle_until(Before, Deadline) ->
    After = count(),
    Grown = [Name || {Name, Tolerance} <- tolerances(), maps:get(Name, After) > maps:get(Name, Before) + Tolerance],
    case Grown =:= [] orelse erlang:monotonic_time(millisecond) > Deadline of
        true ->
            {After, Grown};
        false ->
            receive
            after ?INTERVAL -> settle_until(Before, Deadline)
            end
    end.

%% @doc Prints what a run gave.
print(#{before := Before, 'after' := After, counts := Counts, grown := Grown, failures := Failures}) ->
    io:format("~-18s ~12s ~12s ~12s~n", ["", "before", "after", "may grow by"]),
    [
        io:format("~-18s ~12b ~12b ~12b~s~n", [
            Name, maps:get(Name, Before), maps:get(Name, After), Tolerance, mark(lists:member(Name, Grown))
        ])
     || {Name, Tolerance} <- tolerances()
    ],
    io:format("~n~b processes killed, ~b restarts; rounds:~n", [maps:get(kills, Counts, 0), maps:get(restarts, Counts, 0)]),
    Rounds = lists:sort(maps:to_list(maps:without([kills, restarts], Counts))),
    io:format("  ~s~n", [lists:join(", ", [io_lib:format("~s ~b", [Name, Count]) || {Name, Count} <- Rounds])]),
    [io:format("failure in ~s: ~0P~n", [Name, Reason, 100]) || {_, Name, Reason} <- Failures],
    ok.

mark(true) -> "  <-- grown";
mark(false) -> "".
