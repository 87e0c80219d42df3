%% SPDX-License-Identifier: Apache-2.0
%% Functions as handlers: worker processes that fail, are killed, or wait.
-module(tokamak_pool_workers_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [until/1, in_flight/0]).

workers_test_() ->
    call_fixture:tests([
        fun a_crash_is_the_items_error/0,
        fun a_killed_worker_fails_its_item_and_is_replaced/0,
        fun a_worker_may_die_by_a_link_with_any_reason/0,
        fun killing_workers_at_random_loses_no_item/0,
        fun as_many_workers_run_as_were_asked_for/0,
        fun few_items_start_few_workers_however_many_are_allowed/0,
        fun each_item_that_waits_has_a_worker_up_to_those_allowed/0,
        fun more_workers_than_can_be_are_refused/0,
        fun a_slow_item_holds_up_no_other/0,
        fun keys_are_what_the_function_says/0,
        fun a_key_function_that_fails_on_children_is_the_items_error/0,
        fun many_children_are_handed_over_in_parts/0,
        fun workers_end_with_the_run/0,
        fun workers_end_with_a_cancel_and_with_the_owner/0,
        fun a_run_whose_manager_dies_fails/0
    ]).

refused_test_() ->
    call_fixture:tests(#{max_in_flight => 1}, [fun a_refused_run_leaves_no_manager/0]).

a_crash_is_the_items_error() ->
    Handler = fun
        (error) -> error(oops);
        (throw) -> throw(oops);
        (exit) -> exit(oops);
        (improper) -> {ok, 1, [a | b]};
        (nonsense) -> nonsense;
        (N) -> {ok, N, []}
    end,
    {ok, Results, Stats} = tokamak_pool:run(Handler, [error, throw, exit, improper, nonsense, 1], #{}),
    ?assertMatch(
        #{
            error := {error, {crash, {error, oops, [_ | _]}}},
            throw := {error, {crash, {throw, oops, [_ | _]}}},
            exit := {error, {crash, {exit, oops, [_ | _]}}},
            improper := {error, {bad_return, {ok, 1, [a | b]}}},
            nonsense := {error, {bad_return, nonsense}},
            1 := {ok, 1}
        },
        maps:from_list(Results)
    ),
    ?assertMatch(#{failed := 5, succeeded := 1}, Stats).

a_killed_worker_fails_its_item_and_is_replaced() ->
    Handler = fun
        (N) when N rem 2 =:= 0 -> exit(self(), kill), receive after infinity -> ok end;
        (N) -> {ok, N, []}
    end,
    {ok, Results, _} = tokamak_pool:run(Handler, lists:seq(1, 20), #{workers => 2}),
    Killed = {error, {crash, {exit, killed, []}}},
    Expected = [{N, case N rem 2 of 0 -> Killed; 1 -> {ok, N} end} || N <- lists:seq(1, 20)],
    ?assertEqual(Expected, lists:sort(Results)).

%% `over' is what workers and their manager tell each other, too.
a_worker_may_die_by_a_link_with_any_reason() ->
    Handler = fun(Reason) ->
        _ = spawn_link(fun() -> exit(Reason) end),
        receive after infinity -> ok end
    end,
    Reasons = [over, shutdown, kill, {over, make_ref()}],
    Ref = tokamak_pool:start(Handler, Reasons, #{workers => 2}),
    ok = tokamak_pool:close(Ref),
    {Results, {finished, #{failed := 4}}} = tokamak_test:results(Ref),
    ?assertEqual(
        lists:sort([{Reason, {error, {crash, {exit, Reason, []}}}} || Reason <- Reasons]), lists:sort(Results)
    ).

killing_workers_at_random_loses_no_item() ->
    Ref = tokamak_pool:start(fun(N) -> {ok, N, [2 * N, 2 * N + 1]} end, [1], #{max_items => 30000, workers => 4}),
    ok = tokamak_pool:close(Ref),
    Killer = spawn_link(fun() -> kill_for_ever(workers()) end),
    {Results, {finished, Stats}} = tokamak_test:results(Ref),
    true = unlink(Killer),
    exit(Killer, kill),
    #{dispatched := Dispatched} = Stats,
    ?assertEqual(Dispatched, map_size(pool_graphs:results(Results))).

kill_for_ever([]) ->
    receive
    after 1 -> kill_for_ever(workers())
    end;
kill_for_ever(Workers) ->
    exit(lists:nth(rand:uniform(length(Workers)), Workers), kill),
    kill_for_ever([]).

as_many_workers_run_as_were_asked_for() ->
    Counter = counters:new(2, []),
    Handler = fun(N) ->
        counters:add(Counter, 1, 1),
        until(fun() -> counters:get(Counter, 1) >= 3 end),
        {ok, N, []}
    end,
    {ok, _, #{succeeded := 3}} = tokamak_pool:run(Handler, [1, 2, 3], #{workers => 3}).

few_items_start_few_workers_however_many_are_allowed() ->
    lists:foreach(
        fun(Allowed) ->
            Ref = tokamak_pool:start(waiting_handler(), [1, 2, 3], #{workers => Allowed}),
            InHand = in_hand(3),
            %% Each was called for an item that was added, or left when one was taken.
            ?assert(length(workers()) =< 6),
            [Pid ! go || Pid <- InHand],
            ok = tokamak_pool:close(Ref),
            ?assertMatch({[_, _, _], {finished, _}}, tokamak_test:results(Ref)),
            until(fun() -> managers() =:= [] end)
        end,
        [10, 1000, 100000, 16777216]
    ).

each_item_that_waits_has_a_worker_up_to_those_allowed() ->
    Ref = tokamak_pool:start(waiting_handler(), lists:seq(1, 1000), #{workers => 300}),
    InHand = in_hand(300),
    ?assertEqual(300, length(lists:usort(InHand))),
    ?assertEqual(300, length(workers())),
    [Pid ! go || Pid <- InHand],
    Others = in_hand(300),
    ?assertEqual(lists:usort(InHand), lists:usort(Others)),
    ok = tokamak_pool:cancel(Ref),
    until(fun() -> workers() =:= [] andalso managers() =:= [] end).

%% Tells who has an item in hand, and waits.
waiting_handler() ->
    Self = self(),
    fun(N) ->
        Self ! {in_hand, self()},
        receive
            go -> {ok, N, []}
        end
    end.

in_hand(Count) ->
    [receive {in_hand, Pid} -> Pid after 10000 -> error(missing) end || _ <- lists:seq(1, Count)].

more_workers_than_can_be_are_refused() ->
    Run = fun(Workers) -> tokamak_pool:run(fun(N) -> {ok, N, []} end, [1], #{workers => Workers}) end,
    ?assertMatch({ok, [{1, {ok, 1}}], _}, Run(16777216)),
    Expected = #{3 => "option workers is not an integer from 1 to 16777216"},
    lists:foreach(
        fun(Workers) -> ?assertEqual(Expected, call_fixture:explanation(fun() -> Run(Workers) end)) end,
        [16777217, 1 bsl 31, 1 bsl 63, 1 bsl 64, 0, -1, 1.0, infinity]
    ).

a_slow_item_holds_up_no_other() ->
    Self = self(),
    Handler = fun
        (0) -> receive go -> {ok, 0, []} end;
        (100) -> Self ! {done, 100}, {ok, 100, []};
        (N) -> {ok, N, []}
    end,
    Ref = tokamak_pool:start(Handler, lists:seq(0, 100), #{workers => 2}),
    receive {done, 100} -> ok after 5000 -> error(held_up) end,
    ok = tokamak_pool:cancel(Ref).

keys_are_what_the_function_says() ->
    Handler = fun(N) -> {ok, N, [N + 1 || N < 1000]} end,
    {ok, Results, Stats} = tokamak_pool:run(Handler, [1, 11], #{key => fun(N) -> N rem 10 end}),
    ?assertEqual(lists:seq(0, 9), lists:sort([N rem 10 || {N, {ok, _}} <- Results])),
    ?assertMatch(#{dispatched := 10}, Stats),
    Ref = tokamak_pool:start(Handler, [], #{key => fun(N) -> N div 1000 end}),
    ok = tokamak_pool:add(Ref, [1]),
    ok = tokamak_pool:close(Ref),
    ?assertMatch({[{1, {ok, 1}}], _}, tokamak_test:results(Ref)).

a_key_function_that_fails_on_children_is_the_items_error() ->
    Handler = fun(N) -> {ok, N, lists:duplicate(600, N) ++ [a]} end,
    Key = fun(N) when is_integer(N) -> N end,
    ?assertMatch(
        {ok, [{1, {error, {crash, {error, function_clause, _}}}}], _}, tokamak_pool:run(Handler, [1], #{key => Key})
    ),
    ?assertError(function_clause, tokamak_pool:run(Handler, [a], #{key => Key})).

many_children_are_handed_over_in_parts() ->
    Count = fun(_Result, Count) -> Count + 1 end,
    Handler = fun(0) -> {ok, 0, lists:seq(1, 12345)}; (N) -> {ok, N, []} end,
    ?assertMatch({ok, 12346, _}, tokamak_pool:fold(Handler, [0], Count, 0, #{})),
    ?assertMatch({ok, 12346, _}, tokamak_pool:fold(Handler, [0], Count, 0, #{key => fun(N) -> {N} end})).

workers_end_with_the_run() ->
    {ok, _, _} = tokamak_pool:run(fun(N) -> {ok, N, []} end, [1], #{workers => 10}),
    until(fun() -> workers() =:= [] andalso managers() =:= [] end).

workers_end_with_a_cancel_and_with_the_owner() ->
    Handler = fun(_) -> receive after infinity -> ok end end,
    Ref = tokamak_pool:start(Handler, [1, 2], #{}),
    until(fun() -> workers() =/= [] end),
    ok = tokamak_pool:cancel(Ref),
    until(fun() -> workers() =:= [] andalso managers() =:= [] end),
    Owner = spawn(fun() -> tokamak_pool:run(Handler, [1, 2], #{}) end),
    until(fun() -> workers() =/= [] end),
    exit(Owner, kill),
    until(fun() -> workers() =:= [] andalso managers() =:= [] andalso in_flight() =:= 0 end).

a_run_whose_manager_dies_fails() ->
    Ref = tokamak_pool:start(fun(_) -> receive after infinity -> ok end end, [1], #{}),
    [Manager] = managers(),
    exit(Manager, kill),
    ?assertMatch({[], {error, Text}} when is_binary(Text), tokamak_test:results(Ref)).

a_refused_run_leaves_no_manager() ->
    Call = tokamak:async(sleep, [60000]),
    Handler = fun(N) -> {ok, N, []} end,
    ?assertEqual({error, overloaded}, tokamak_pool:run(Handler, [1], #{workers => 2})),
    Ref = tokamak_pool:start(Handler, [1], #{workers => 2}),
    ?assertEqual({[], {error, overloaded}}, tokamak_test:results(Ref)),
    until(fun() -> managers() =:= [] end),
    ok = tokamak:cancel(Call).

managers() ->
    [Pid || {_, Pid, _, _} <- supervisor:which_children(tokamak_pool_sup)].

%% Linked to their managers.
workers() ->
    Links = [Links || Manager <- managers(), {links, Links} <- [process_info(Manager, links)]],
    lists:append(Links) -- [whereis(tokamak_pool_sup)].
