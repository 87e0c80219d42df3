%% SPDX-License-Identifier: Apache-2.0
%% @doc The part of a shared run on one node, see {@link tokamak_pool_spread}.
%%
%% An agent owns a native run of its node whose results come with their children. Those that are at home here
%% go back into it, the others to the coordinator, with the results and before anything is settled.
%% @private
-module(tokamak_pool_agent).

-export([serve/5]).

-record(state, {
    coordinator :: pid(),
    monitor :: reference(),
    run :: reference(),
    keyed :: boolean(),
    home :: pos_integer(),
    homes :: pos_integer(),
    %% Items that came from the coordinator and are not settled.
    unsettled = 0 :: non_neg_integer(),
    %% Results of the run, and duplicates that it did not see.
    results = 0 :: non_neg_integer(),
    duplicates = 0 :: non_neg_integer()
}).

%% @doc Serves a run until its coordinator is gone.
-spec serve(pid(), tokamak_pool:handler(), map(), pos_integer(), pos_integer()) -> no_return().
serve(Coordinator, Handler, Options, Home, Homes) ->
    Monitor = monitor(process, Coordinator),
    Run = tokamak_pool:start_routed(Handler, maps:with([workers, key, on_error, window], Options)),
    loop(#state{
        coordinator = Coordinator,
        monitor = Monitor,
        run = Run,
        keyed = is_map_key(key, Options),
        home = Home,
        homes = Homes
    }).

loop(#state{run = Run, monitor = Monitor, coordinator = Coordinator} = State) ->
    receive
        {items, Items} ->
            loop(settle(add(Items, State#state{unsettled = State#state.unsettled + length(Items)})));
        {tokamak, Run, {results, Results}} ->
            loop(settle(deliver(Results, State)));
        ack ->
            ok = tokamak_pool:ack(Run, 1),
            loop(State);
        {tokamak, Run, {error, shutdown}} ->
            exit(shutdown);
        {tokamak, Run, {error, Reason}} ->
            Coordinator ! {failed, Reason},
            loop(State);
        {'DOWN', Monitor, process, _, _} ->
            exit(normal);
        _ ->
            loop(State)
    end.

add(Items, #state{run = Run} = State) ->
    %% A run that has failed takes none; the coordinator knows.
    _ = tokamak_pool:add_prepared(Run, Items),
    State.

deliver(Results, #state{coordinator = Coordinator, home = Home, results = Count} = State) ->
    {Plain, Children} = lists:mapfoldl(fun split/2, [], Results),
    {Here, Elsewhere, Again} = by_home(lists:append(Children), State),
    Counted = State#state{results = Count + length(Results), duplicates = State#state.duplicates + Again},
    Added = add(Here, Counted),
    Coordinator ! {results, Home, Plain, Elsewhere, stats(Added)},
    Added.

split({Item, {ok, {Result, Children}}}, Before) -> {{Item, {ok, Result}}, [Children | Before]};
split({_Item, {error, _}} = Result, Before) -> {Result, Before}.

%% Children that are discovered again in the same batch are not sent again.
by_home(Children, #state{home = Home, homes = Homes, keyed = Keyed}) ->
    All = lists:foldl(
        fun(Child, Maps) ->
            Key = key(Keyed, Child),
            Of = tokamak_pool_spread:home(Key, Homes),
            Maps#{Of => (maps:get(Of, Maps, #{}))#{Key => Child}}
        end,
        #{},
        Children
    ),
    Lists = maps:map(fun(_, Map) -> maps:values(Map) end, All),
    Distinct = lists:sum([length(List) || List <- maps:values(Lists)]),
    {maps:get(Home, Lists, []), maps:remove(Home, Lists), length(Children) - Distinct}.

key(true, {Key, _Item}) -> Key;
key(false, Item) -> Item.

%% All results are here, and all that they led to was added or sent.
settle(#state{unsettled = 0} = State) ->
    State;
settle(#state{coordinator = Coordinator, home = Home, results = Results, unsettled = Unsettled} = State) ->
    case stats(State) of
        #{dispatched := Results} = Stats ->
            Coordinator ! {settled, Home, Unsettled, Stats},
            State#state{unsettled = 0};
        _ ->
            State
    end.

stats(#state{run = Run, duplicates = Again}) ->
    #{duplicates := Duplicates} = Stats = tokamak_pool:stats_of(Run),
    Stats#{duplicates := Duplicates + Again}.
