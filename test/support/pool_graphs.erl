%% SPDX-License-Identifier: Apache-2.0
%% The graphs of native/tokamak_test_engine/src/pools.rs in Erlang, and what a run over one has to give.
-module(pool_graphs).

-export([chain/1, star/1, tree/1, dense/1, random_graph/1]).
-export([sequential/2, results/1]).

-define(ITEMS, 1000000).
-define(MASK, 16#FFFFFFFFFFFFFFFF).

chain(Item) -> {ok, Item * 2, [Item + 1 || Item + 1 < ?ITEMS]}.

star(0) -> {ok, 0, lists:seq(1, ?ITEMS - 1)};
star(Item) -> {ok, Item * 2, []}.

tree(Item) -> {ok, Item * 2, [Child || Child <- lists:seq(4 * Item + 1, 4 * Item + 4), Child < ?ITEMS]}.

dense(Item) -> {ok, Item * 2, [(Item * 10 + N) rem ?ITEMS || N <- lists:seq(1, 10)]}.

random_graph({Seed, Size, Failing, _Number} = Node) ->
    Kind = random(Node, 0) rem 1000,
    case {Kind < Failing, Kind rem 2} of
        {true, 0} ->
            {error, <<"an even one">>};
        {true, 1} ->
            {error, {panic, <<"an odd one">>}};
        {false, _} ->
            Children = [
                {Seed, Size, Failing, random(Node, Nth + 1) rem Size}
             || Nth <- lists:seq(1, random(Node, 1) rem 5)
            ],
            {ok, element(4, Node), Children}
    end.

random({Seed, _Size, _Failing, Number}, Salt) ->
    Mixed = mix(Seed bxor (Number bsl 20) bxor (Salt bsl 50), 29, 16#9E3779B97F4A7C15),
    More = (Mixed * 16#BF58476D1CE4E5B9) band ?MASK,
    More bxor (More bsr 32).

mix(Number, Shift, Factor) ->
    Product = ((Number band ?MASK) * Factor) band ?MASK,
    Product bxor (Product bsr Shift).

%% @doc What a handler gives for all that the seeds lead to, one item after another.
sequential(Handler, Seeds) ->
    sequential(Handler, Seeds, #{}).

sequential(_Handler, [], Seen) ->
    Seen;
sequential(Handler, [Item | Items], Seen) when is_map_key(Item, Seen) ->
    sequential(Handler, Items, Seen);
sequential(Handler, [Item | Items], Seen) ->
    case Handler(Item) of
        {ok, Result, Children} -> sequential(Handler, Children ++ Items, Seen#{Item => {ok, Result}});
        {error, _} = Error -> sequential(Handler, Items, Seen#{Item => Error})
    end.

%% @doc Results as a map; each item has to be there once.
results(Results) ->
    Map = maps:from_list(Results),
    length(Results) =:= map_size(Map) orelse error({twice, Results -- maps:to_list(Map)}),
    Map.
