%% SPDX-License-Identifier: Apache-2.0
%% @doc The baselines of a pool in Erlang. What was seen stands in an ets table; results are messages.
-module(bench_processes).

-export([each/1, workers/3]).

%% @doc Runs a graph and counts its results. As one would write it first: a process an item.
-spec each(atom()) -> non_neg_integer().
each(Shape) ->
    Seen = seen([0]),
    _ = start(self(), Shape, Seen, 0),
    Counted = collect(1, 0),
    true = ets:delete(Seen),
    Counted.

start(Collector, Shape, Seen, Item) ->
    spawn(fun() ->
        {ok, Result, Children} = pool_graphs:Shape(Item),
        Fresh = [Child || Child <- Children, ets:insert_new(Seen, {Child})],
        Collector ! {ran, Item, {ok, Result}, length(Fresh)},
        [start(Collector, Shape, Seen, Child) || Child <- Fresh]
    end).

%% An item's message is there before any of its children's.
collect(0, Counted) ->
    Counted;
collect(Left, Counted) ->
    receive
        {ran, _Item, {ok, _Result}, Fresh} -> collect(Left - 1 + Fresh, Counted + 1)
    end.

seen(Seeds) ->
    Seen = ets:new(seen, [public, {write_concurrency, true}]),
    true = ets:insert_new(Seen, [{Seed} || Seed <- Seeds]),
    Seen.

%% @doc Runs a graph from its first items, which differ, and counts its results. As one would write it in the
%% end: as many worker processes as there are schedulers ask a coordinator for items.
-spec workers(atom(), [non_neg_integer()], pos_integer()) -> non_neg_integer().
workers(Shape, Seeds, Workers) ->
    Seen = seen(Seeds),
    Coordinator = self(),
    Pids = [spawn_link(fun() -> work(Coordinator, Shape, Seen) end) || _ <- lists:seq(1, Workers)],
    Counted = coordinate(Seeds, Pids, 0, 0),
    [begin unlink(Pid), exit(Pid, kill) end || Pid <- Pids],
    true = ets:delete(Seen),
    Counted.

coordinate([Item | Items], [Worker | Free], Running, Counted) ->
    Worker ! {run, Item},
    coordinate(Items, Free, Running + 1, Counted);
coordinate([], _Free, 0, Counted) ->
    Counted;
coordinate(Items, Free, Running, Counted) ->
    receive
        {ran, Worker, _Item, {ok, _Result}, Fresh} ->
            coordinate(Fresh ++ Items, [Worker | Free], Running - 1, Counted + 1)
    end.

work(Coordinator, Shape, Seen) ->
    receive
        {run, Item} ->
            {ok, Result, Children} = pool_graphs:Shape(Item),
            Fresh = [Child || Child <- Children, ets:insert_new(Seen, {Child})],
            Coordinator ! {ran, self(), Item, {ok, Result}, Fresh},
            work(Coordinator, Shape, Seen)
    end.
