%% SPDX-License-Identifier: Apache-2.0
%% Random graphs: a run gives what a plain traversal gives, each key once, under errors and cancels.
-module(tokamak_pool_property_tests).

-include_lib("eunit/include/eunit.hrl").

-define(SECONDS, 180).

properties_test_() ->
    Properties = [
        {"runs of operations give what a traversal gives", 5000, fun run_of_an_operation/1},
        {"runs of functions give what a traversal gives", 2500, fun run_of_a_function/1},
        {"cancelled runs give a part of it and leave nothing", 2500, fun cancelled_run/1}
    ],
    {setup, fun() -> {ok, Apps} = application:ensure_all_started(tokamak), Apps end,
        fun(Apps) -> tokamak_test:quietly(fun() -> [application:stop(App) || App <- Apps] end) end,
        [{Title, {timeout, ?SECONDS, fun() -> holds(Count, Property) end}} || {Title, Count, Property} <- Properties]}.

holds(Count, Property) ->
    Options = [{numtests, Count}, {max_size, 60}, quiet, long_result],
    Checked = proper:quickcheck(proper:forall(graph(), Property), Options),
    ?assertEqual(true, Checked),
    ?assertEqual({messages, []}, process_info(self(), messages)),
    tokamak_test:wait_for({0, []}, fun() ->
        #{in_flight := InFlight} = tokamak:stats(),
        {InFlight, supervisor:which_children(tokamak_pool_sup)}
    end).

%% Seeds of a random graph, and how to run it.
graph() ->
    Number = fun(Low, High) -> proper_types:integer(Low, High) end,
    proper_types:tuple([
        Number(1, 1000000),
        proper_types:oneof([Number(1, 20), Number(20, 300)]),
        proper_types:oneof([0, Number(0, 300)]),
        proper_types:list(Number(0, 19)),
        Number(1, 8),
        Number(1, 4),
        proper_types:oneof([skip, skip, skip, stop]),
        proper_types:oneof([random_graph, random_graph, random_graph, slow_random_graph, blocking_random_graph])
    ]).

seeds({Seed, Size, Failing, Numbers, _, _, _, _}) ->
    [{Seed, Size, Failing, Number rem Size} || Number <- Numbers].

options({_, _, _, _, Workers, Window, OnError, _}) ->
    #{workers => Workers, window => Window, on_error => OnError}.

run_of_an_operation(Graph) ->
    is_that_of_a_traversal({op, {tokamak_test_engine, element(8, Graph)}}, Graph).

run_of_a_function(Graph) ->
    is_that_of_a_traversal(fun pool_graphs:random_graph/1, Graph).

is_that_of_a_traversal(Handler, Graph) ->
    Expected = pool_graphs:sequential(fun pool_graphs:random_graph/1, seeds(Graph)),
    Failed = maps:filter(fun(_, Result) -> element(1, Result) =:= error end, Expected),
    case {tokamak_pool:run(Handler, seeds(Graph), options(Graph)), options(Graph)} of
        {{error, {Item, Reason}}, #{on_error := stop}} ->
            maps:get(Item, Failed) =:= {error, Reason};
        {{ok, Results, Stats}, #{on_error := OnError}} ->
            #{dispatched := Dispatched, succeeded := Succeeded, failed := FailedCount} = Stats,
            pool_graphs:results(Results) =:= Expected andalso
                Dispatched =:= map_size(Expected) andalso
                FailedCount =:= map_size(Failed) andalso
                Succeeded =:= Dispatched - FailedCount andalso
                (OnError =:= skip orelse map_size(Failed) =:= 0)
    end.

cancelled_run({_, _, _, Numbers, _, _, _, _} = Graph) ->
    Handler =
        case length(Numbers) rem 2 of
            0 -> {op, {tokamak_test_engine, element(8, Graph)}};
            1 -> fun pool_graphs:random_graph/1
        end,
    Expected = pool_graphs:sequential(fun pool_graphs:random_graph/1, seeds(Graph)),
    Ref = tokamak_pool:start(Handler, seeds(Graph), (options(Graph))#{on_error => skip}),
    Results = take(Ref, length(Numbers) rem 4),
    ok = tokamak_pool:cancel(Ref),
    Map = pool_graphs:results(Results),
    maps:with(maps:keys(Map), Expected) =:= Map andalso
        process_info(self(), message_queue_len) =:= {message_queue_len, 0} andalso
        tokamak_pool:add(Ref, seeds(Graph)) =:= {error, closed}.

take(_Ref, 0) ->
    [];
take(Ref, Batches) ->
    receive
        {tokamak, Ref, {results, Results}} ->
            ok = tokamak_pool:ack(Ref, 1),
            Results ++ take(Ref, Batches - 1)
    after 1 -> []
    end.
