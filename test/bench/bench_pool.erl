%% SPDX-License-Identifier: Apache-2.0
%% @doc A million small items through a pool, whose results all come to one process, beside what one would
%% write otherwise: Erlang processes that share an ets table for what was seen (one an item, or a few that
%% are given items by a coordinator); a native thread with a
%% hash set; native threads that share both behind a mutex. The graphs are those of
%% native/tokamak_test_engine/src/pools.rs, so the handler is the same arithmetic everywhere.
-module(bench_pool).

-export([benches/1]).

-define(ITEMS, 1000000).
-define(SHAPES, [tree, chain, star, dense]).
-define(WORKERS, [1, 2, 4, 8, 16, 64]).
-define(SIZES, [100, 1000, 10000, 100000]).
%% Items of the tree from here on have no children.
-define(FIRST_LEAF, 250000).

-spec benches(tokamak_bench:options()) -> [tokamak_bench:bench()].
benches(Options) ->
    %% The engine's runtime has descriptors: it starts before anything is measured.
    {ok, _} = tokamak:call({tokamak_test_engine, tree}, [0]),
    %% A graph has its size: for `--quick' there are fewer runs of it.
    Once = Options#{runs := min(3, maps:get(runs, Options))},
    [
        fun() -> shape(tree, #{must => 10, aim => 15}, Once) end,
        fun() -> shape(star, #{}, Once) end,
        fun() -> shape(dense, #{}, Once) end,
        fun() -> shape(chain, #{}, Once) end,
        fun() -> native(Once) end,
        fun() -> workers(Once) end
    ] ++ [fun() -> leaves(Size, Once) end || Size <- ?SIZES] ++ [
        fun() -> index(Once) end,
        fun memory/0
    ].

schedulers() -> erlang:system_info(schedulers_online).

shape(Shape, Marks, Options) ->
    Subjects = [
        {native, fun() -> operation(Shape) end},
        {function, fun() -> function(Shape) end},
        {each, fun() -> bench_measure:timed(?ITEMS, fun() -> bench_processes:each(Shape) end) end},
        {processes, fun() -> processes(Shape) end}
    ],
    Measured = bench_measure:compare(Subjects, Options, 0),
    [
        row([atom_to_list(Shape), ", operation"], Measured, native, each, Marks),
        row([atom_to_list(Shape), ", operation"], Measured, native, processes, #{}),
        row([atom_to_list(Shape), ", function"], Measured, function, processes, #{})
    ].

%% Next to native code.
native(Options) ->
    Subjects = lists:append([
        [
            {{pool, Shape}, fun() -> operation(Shape) end},
            {{single, Shape}, fun() -> thread(Shape, 1) end},
            {{mutex, Shape}, fun() -> thread(Shape, 2) end}
        ]
     || Shape <- ?SHAPES
    ]),
    Measured = bench_measure:compare(Subjects, Options, 0),
    [
        row(
            [atom_to_list(Shape), ", operation"], Measured, {pool, Shape}, {Kind, Shape}, #{}
        )
     || Shape <- ?SHAPES, Kind <- [single, mutex]
    ].

workers(Options) ->
    Run = fun(Workers) -> pool(op(tree), Workers) end,
    Subjects = [{Workers, fun() -> Run(Workers) end} || Workers <- ?WORKERS],
    Measured = bench_measure:compare(Subjects, Options, 0),
    Plot = fun(Workers) -> plot("Workers", "operation", "workers", Workers) end,
    [
        row(io_lib:format("tree, ~b workers", [Workers]), Measured, Workers, 1, #{plot => Plot(Workers)})
     || Workers <- tl(?WORKERS)
    ].

%% As many items as are there from the start.
leaves(Size, Options) ->
    Items = lists:seq(?FIRST_LEAF, ?FIRST_LEAF + Size - 1),
    Subjects = [
        {native, fun() -> pool(op(tree), Items, schedulers(), Size) end},
        {function, fun() -> pool(fun pool_graphs:tree/1, Items, schedulers(), Size) end},
        {processes, fun() -> processes(tree, Items, Size) end}
    ],
    Measured = bench_measure:compare(Subjects, Options),
    [
        row(
            io_lib:format("~b items without children, ~s", [Size, Line]),
            Measured, Subject, processes, #{plot => plot("Items", Line, "items", Size)}
        )
     || {Subject, Line} <- [{native, "operation"}, {function, "function"}]
    ].

plot(Title, Line, XName, X) ->
    #{title => Title, line => Line, x_name => XName, x => X}.

memory() ->
    [
        bench_memory:over_time("a tree of a million items through a pool", [
            {"operation", fun() -> operation(tree) end},
            {"function", fun() -> function(tree) end},
            {name(processes), fun() -> processes(tree) end}
        ])
    ].

op(Shape) -> {op, {tokamak_test_engine, Shape}}.

operation(Shape) ->
    pool(op(Shape), schedulers()).

function(Shape) ->
    pool(fun(Item) -> pool_graphs:Shape(Item) end, schedulers()).

pool(Handler, Workers) ->
    pool(Handler, [0], Workers, ?ITEMS).

pool(Handler, Seeds, Workers, Expected) ->
    Count = fun({_Item, {ok, _}}, Count) -> Count + 1 end,
    bench_measure:timed(Expected, fun() ->
        {ok, Counted, _} = tokamak_pool:fold(Handler, Seeds, Count, 0, #{workers => Workers}),
        Counted
    end).

processes(Shape) ->
    processes(Shape, [0], ?ITEMS).

processes(Shape, Seeds, Expected) ->
    bench_measure:timed(Expected, fun() -> bench_processes:workers(Shape, Seeds, schedulers()) end).

thread(Shape, Threads) ->
    bench_measure:timed(?ITEMS, fun() ->
        ok = tokamak_bench_nif:graph_start(self(), Shape, Threads),
        count(0)
    end).

count(Counted) ->
    receive
        {results, Results} -> count(Counted + length(Results));
        finished -> Counted
    end.

%% The files of the installed Erlang, with a warm cache.
index(Options) ->
    Root = list_to_binary(code:lib_dir()),
    Count = length(index_files(Root)),
    Command = io_lib:format("find '~ts' -type f -print0 | xargs -0 -P2 sha256sum | wc -l", [Root]),
    %% It follows no links, so it may find fewer.
    Found = list_to_integer(string:trim(os:cmd(Command))),
    Subjects = [
        {pool, fun() -> bench_measure:timed(Count, fun() -> length(index_files(Root)) end) end},
        {find, fun() ->
            bench_measure:timed(Found, fun() -> list_to_integer(string:trim(os:cmd(Command))) end)
        end}
    ],
    Measured = bench_measure:compare(Subjects, Options),
    [row("index of files", Measured, pool, find, #{must => 1, unit => "file"})].

index_files(Root) ->
    {ok, Results, _} = tokamak_pool:run({op, index_file}, [Root], #{workers => 2}),
    [File || {File, {ok, {file, _Size, _Digest}}} <- Results].

row(Name, Measured, Subject, Baseline, More) ->
    bench_report:row((maps:merge(#{unit => "item"}, More))#{
        name => Name,
        kind => rate,
        subject => maps:get(Subject, Measured),
        baseline_name => name(Baseline),
        baseline => maps:get(Baseline, Measured)
    }).

name(each) -> "ets and a process an item";
name(processes) -> "ets and worker processes";
name({single, _}) -> "one native thread";
name({mutex, _}) -> "two threads and a mutex";
name(find) -> "find | xargs -P2 sha256sum";
name(1) -> "1 worker".
