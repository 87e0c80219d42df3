%% SPDX-License-Identifier: Apache-2.0
%% @doc The baseline of a pool in Erlang, as one would write it: worker processes ask a coordinator for
%% items; what was seen stands in an ets table that the workers insert into; results are messages.
-module(bench_processes).

-export([run/3]).

%% @doc Runs a graph from its first items, which differ, and counts its results.
-spec run(atom(), [non_neg_integer()], pos_integer()) -> non_neg_integer().
run(Shape, Seeds, Workers) ->
    Seen = ets:new(seen, [public, {write_concurrency, true}]),
    true = ets:insert_new(Seen, [{Seed} || Seed <- Seeds]),
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
