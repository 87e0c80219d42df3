%% SPDX-License-Identifier: Apache-2.0
%% Runs that several nodes share.
-module(tokamak_pool_nodes_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, until/1]).

-define(SECONDS, 120).
%% Of a node that does not answer it is known after 45 seconds at the earliest: who is done before did not wait for it.
-define(BEFORE_IT_IS_LOST, 30_000).

nodes_test_() ->
    {setup, fun start/0, fun stop/1, fun(Nodes) ->
        [
            {lists:flatten(string:replace(atom_to_list(Name), "_", " ", all)),
                {timeout, ?SECONDS, fun() -> tokamak_test:in_process(fun() -> Test(Nodes) end) end}}
         || {Name, Test} <- [
                {random_graphs_are_run_once_in_all, fun random_graphs_are_run_once_in_all/1},
                {functions_and_keys_work_over_nodes, fun functions_and_keys_work_over_nodes/1},
                {a_run_takes_items_until_it_is_closed, fun a_run_takes_items_until_it_is_closed/1},
                {the_first_error_ends_the_run, fun the_first_error_ends_the_run/1},
                {a_cancelled_run_leaves_nothing, fun a_cancelled_run_leaves_nothing/1},
                {a_run_of_a_dead_owner_leaves_nothing, fun a_run_of_a_dead_owner_leaves_nothing/1},
                {a_run_that_takes_too_long_is_ended, fun a_run_that_takes_too_long_is_ended/1},
                {results_come_on_credit, fun results_come_on_credit/1},
                {a_lost_node_ends_the_run, fun a_lost_node_ends_the_run/1},
                {a_run_whose_coordinator_dies_fails, fun a_run_whose_coordinator_dies_fails/1},
                {a_run_whose_supervisor_dies_fails, fun a_run_whose_supervisor_dies_fails/1},
                {a_cancel_silences_a_run_whose_coordinator_died, fun a_cancel_silences_a_run_whose_coordinator_died/1},
                {a_cancel_forgets_a_run_whose_coordinator_died, fun a_cancel_forgets_a_run_whose_coordinator_died/1},
                {a_run_whose_owner_and_coordinator_die_is_forgotten,
                    fun a_run_whose_owner_and_coordinator_die_is_forgotten/1},
                {the_start_of_a_run_waits_for_no_node, fun the_start_of_a_run_waits_for_no_node/1},
                {a_run_times_out_though_a_node_reads_nothing, fun a_run_times_out_though_a_node_reads_nothing/1},
                {a_cancel_waits_for_no_node, fun a_cancel_waits_for_no_node/1},
                {a_stop_waits_for_no_node, fun a_stop_waits_for_no_node/1},
                {a_node_that_is_not_there_is_down, fun a_node_that_is_not_there_is_down/1},
                {a_run_ends_with_the_application_of_its_owner, fun a_run_ends_with_the_application_of_its_owner/1}
            ]
        ]
    end}.

%% Three nodes beside this one; the last is there to be lost.
start() ->
    ok = tokamak_peer:become_node("tokamak_" ++ os:getpid() ++ "@localhost"),
    {ok, _} = application:ensure_all_started(tokamak),
    [start_node(N) || N <- lists:seq(1, 3)].

start_node(N) ->
    Paths = lists:append([["-pa", Path] || Path <- code:get_path(), filename:pathtype(Path) =:= absolute]),
    Name = "tokamak_" ++ os:getpid() ++ "_" ++ integer_to_list(N),
    {ok, Peer, Node} = peer:start(#{
        name => list_to_atom(Name), host => "localhost", args => Paths, connection => standard_io, wait_boot => 30000
    }),
    {ok, _} = peer:call(Peer, application, ensure_all_started, [tokamak]),
    true = net_kernel:connect_node(Node),
    {Peer, Node}.

stop(Nodes) ->
    [ok = tokamak_peer:end_peer(Peer) || {Peer, _} <- Nodes],
    tokamak_test:quietly(fun() -> application:stop(tokamak) end),
    net_kernel:stop().

names(Nodes) ->
    [node() | [Node || {_, Node} <- lists:sublist(Nodes, 2)]].

random_graphs_are_run_once_in_all(Nodes) ->
    lists:foreach(
        fun(Seed) ->
            Seeds = [{Seed, 300, 50, N} || N <- lists:seq(0, Seed rem 5)],
            Expected = pool_graphs:sequential(fun pool_graphs:random_graph/1, Seeds),
            Options = #{nodes => names(Nodes), workers => 2, window => 1 + Seed rem 3},
            {ok, Results, Stats} = tokamak_pool:run({op, op(random_graph)}, Seeds, Options),
            ?assertEqual(Expected, pool_graphs:results(Results)),
            Children = lists:append([children(Node) || Node <- maps:keys(Expected)]),
            Size = map_size(Expected),
            ?assertMatch(#{dispatched := Size}, Stats),
            ?assertEqual(length(Seeds) + length(Children) - Size, maps:get(duplicates, Stats))
        end,
        lists:seq(1, 200)
    ),
    nothing_is_left(Nodes).

children(Node) ->
    case pool_graphs:random_graph(Node) of
        {ok, _, Children} -> Children;
        {error, _} -> []
    end.

functions_and_keys_work_over_nodes(Nodes) ->
    Handler = fun(N) -> {ok, {N, node()}, [M || M <- lists:seq(N + 1, N + 700), M =< 3000]} end,
    Options = #{nodes => names(Nodes), key => fun(N) -> {key, N} end, progress => spread},
    Ref = tokamak_progress:subscribe(spread),
    {ok, Results, #{succeeded := 3000}} = tokamak_pool:run(Handler, [1], Options),
    ?assertEqual(lists:seq(1, 3000), lists:sort([N || {N, {ok, {N, _}}} <- Results])),
    ?assertEqual(lists:sort(names(Nodes)), lists:usort([Node || {_, {ok, {_, Node}}} <- Results])),
    receive
        {tokamak, Ref, {progress, spread, #{status := done, total := Total}}} -> ?assertEqual(3000, Total)
    after 1000 -> error(no_progress)
    end.

a_run_takes_items_until_it_is_closed(Nodes) ->
    Ref = tokamak_pool:start({op, op(random_graph)}, [], #{nodes => names(Nodes)}),
    Seeds = [{7, 100, 0, N} || N <- lists:seq(1, 50)],
    [ok = tokamak_pool:add(Ref, [Seed]) || Seed <- Seeds],
    ok = tokamak_pool:close(Ref),
    ?assertEqual({error, closed}, tokamak_pool:add(Ref, Seeds)),
    {Results, {finished, _}} = tokamak_test:results(Ref),
    ?assertEqual(pool_graphs:sequential(fun pool_graphs:random_graph/1, Seeds), pool_graphs:results(Results)),
    ?assertEqual({error, closed}, tokamak_pool:add(Ref, Seeds)),
    ok = tokamak_pool:ack(Ref, 1),
    ok = tokamak_pool:cancel(Ref).

the_first_error_ends_the_run(Nodes) ->
    Handler = fun(N) when N < 100 -> {ok, N, [N + 1]}; (N) -> {error, {too_large, N}} end,
    Options = #{nodes => names(Nodes), on_error => stop},
    ?assertEqual({error, {100, {too_large, 100}}}, tokamak_pool:run(Handler, [1], Options)),
    nothing_is_left(Nodes).

a_cancelled_run_leaves_nothing(Nodes) ->
    Ref = tokamak_pool:start({op, op(endless)}, [1], #{nodes => names(Nodes)}),
    receive {tokamak, Ref, {results, _}} -> ok end,
    ok = tokamak_pool:cancel(Ref),
    ?assertEqual({messages, []}, process_info(self(), messages)),
    nothing_is_left(Nodes),
    ?assertEqual({messages, []}, process_info(self(), messages)).

a_run_of_a_dead_owner_leaves_nothing(Nodes) ->
    Handler = fun(_) -> receive after infinity -> ok end end,
    Owner = spawn(fun() -> tokamak_pool:run(Handler, [1, 2, 3, 4], #{nodes => names(Nodes)}) end),
    until(fun() -> supervisor:which_children(tokamak_pool_sup) =/= [] end),
    exit(Owner, kill),
    nothing_is_left(Nodes).

a_run_that_takes_too_long_is_ended(Nodes) ->
    Options = #{nodes => names(Nodes), timeout => 50},
    ?assertEqual({error, timeout}, tokamak_pool:run({op, op(hangs)}, [1, 2, 3], Options)),
    nothing_is_left(Nodes).

results_come_on_credit(Nodes) ->
    Ref = tokamak_pool:start({op, op(endless)}, [1], #{nodes => names(Nodes), window => 2}),
    Batches = fun() -> element(2, process_info(self(), message_queue_len)) end,
    until(fun() -> Batches() >= 2 end),
    receive
    after 100 -> ?assert(Batches() =< 6)
    end,
    ok = tokamak_pool:cancel(Ref).

a_lost_node_ends_the_run(Nodes) ->
    {Peer, Node} = lists:last(Nodes),
    Ref = tokamak_pool:start({op, op(endless)}, lists:seq(1, 100), #{nodes => [Node | names(Nodes)]}),
    receive {tokamak, Ref, {results, _}} -> ok end,
    peer:stop(Peer),
    {_, End} = tokamak_test:results(Ref),
    ?assertEqual({error, {nodedown, Node}}, End),
    nothing_is_left(Nodes).

a_run_whose_coordinator_dies_fails(Nodes) ->
    Ref = tokamak_pool:start({op, op(hangs)}, [1, 2, 3], #{nodes => names(Nodes)}),
    ok = tokamak_test:quietly(fun() -> tokamak_test:kill(coordinator(Ref)) end),
    ?assertMatch({[], {error, Text}} when is_binary(Text), tokamak_test:results(Ref)),
    ?assertEqual({error, closed}, tokamak_pool:add(Ref, [4])),
    nothing_is_left(Nodes),
    ?assertEqual({messages, []}, process_info(self(), messages)).

a_run_whose_supervisor_dies_fails(Nodes) ->
    Ref = tokamak_pool:start({op, op(hangs)}, [1, 2, 3], #{nodes => names(Nodes)}),
    ok = tokamak_test:quietly(fun() -> tokamak_test:kill(whereis(tokamak_pool_sup)) end),
    ?assertMatch({[], {error, Text}} when is_binary(Text), tokamak_test:results(Ref)),
    until(fun() -> is_pid(whereis(tokamak_pool_sup)) end),
    nothing_is_left(Nodes),
    ?assertEqual({messages, []}, process_info(self(), messages)).

a_cancel_silences_a_run_whose_coordinator_died(Nodes) ->
    Case = fun() ->
        Ref = tokamak_pool:start({op, op(hangs)}, [1, 2, 3], #{nodes => names(Nodes)}),
        true = exit(coordinator(Ref), kill),
        ok = tokamak_pool:cancel(Ref),
        ?assertEqual({messages, []}, process_info(self(), messages))
    end,
    ok = tokamak_test:quietly(fun() -> tokamak_test:repeat(100, Case) end),
    nothing_is_left(Nodes),
    ?assertEqual({messages, []}, process_info(self(), messages)).

%% The cancel comes before the witness has seen the death.
a_cancel_forgets_a_run_whose_coordinator_died(_Nodes) ->
    Ref = tokamak_pool:start({op, op(hangs)}, [1], #{nodes => [node()]}),
    true = erlang:suspend_process(witness(Ref)),
    ok = tokamak_test:quietly(fun() -> tokamak_test:kill(coordinator(Ref)) end),
    ok = tokamak_pool:cancel(Ref),
    ?assertEqual(error, tokamak_pool_spread:find(Ref)),
    ?assertEqual({messages, []}, process_info(self(), messages)).

%% The coordinator dies before it has seen the death of the owner.
a_run_whose_owner_and_coordinator_die_is_forgotten(_Nodes) ->
    Test = self(),
    Owner = spawn(fun() ->
        Test ! {self(), tokamak_pool:start({op, op(hangs)}, [1], #{nodes => [node()]})},
        receive never -> ok end
    end),
    Ref = receive {Owner, Started} -> Started end,
    {Coordinator, Witness} = {coordinator(Ref), witness(Ref)},
    true = erlang:suspend_process(Coordinator),
    ok = tokamak_test:kill(Owner),
    until(fun() -> not is_process_alive(Witness) end),
    ok = tokamak_test:quietly(fun() -> tokamak_test:kill(Coordinator) end),
    ?assertEqual(error, tokamak_pool_spread:find(Ref)).

the_start_of_a_run_waits_for_no_node(_Nodes) ->
    with_hanging_node(4, fun(_Node) -> none end, fun(Node, none) ->
        Options = #{nodes => [node(), Node], timeout => 100},
        ?assertEqual({error, timeout}, tokamak_pool:run({op, op(hangs)}, [1, 2, 3], Options)),
        Ref = tokamak_pool:start({op, op(hangs)}, [1, 2, 3], #{nodes => [Node]}),
        ?assertMatch({ok, [{1, {ok, 1}}], _}, tokamak_pool:run(fun(N) -> {ok, N, []} end, [1], #{})),
        ok = tokamak_pool:cancel(Ref)
    end).

a_run_times_out_though_a_node_reads_nothing(_Nodes) ->
    Start = fun(Node) -> start_on(Node, #{timeout => 3000}) end,
    with_hanging_node(5, Start, fun(_Node, Ref) ->
        ok = add_much(Ref),
        ?assertEqual({[], {error, timeout}}, tokamak_test:results(Ref))
    end).

a_cancel_waits_for_no_node(_Nodes) ->
    Start = fun(Node) -> start_on(Node, #{}) end,
    with_hanging_node(6, Start, fun(_Node, Ref) ->
        ok = add_much(Ref),
        ok = tokamak_pool:cancel(Ref),
        ?assertEqual({messages, []}, process_info(self(), messages))
    end).

a_stop_waits_for_no_node(_Nodes) ->
    Start = fun(Node) -> start_on(Node, #{}) end,
    with_hanging_node(7, Start, fun(_Node, Ref) ->
        ok = add_much(Ref),
        ok = tokamak_test:quietly(fun() -> application:stop(tokamak) end),
        receive {tokamak, Ref, End} -> ?assertEqual({error, shutdown}, End) end
    end).

%% A run whose part there has begun.
start_on(Node, Options) ->
    Handler = fun(first) -> {ok, first, []}; (_) -> receive after infinity -> ok end end,
    Ref = tokamak_pool:start(Handler, [first], Options#{nodes => [Node]}),
    receive {tokamak, Ref, {results, [{first, {ok, first}}]}} -> Ref end.

%% More than a connection takes.
add_much(Ref) ->
    Large = binary:copy(<<0>>, 100_000),
    lists:foreach(
        fun(Part) -> ok = tokamak_pool:add(Ref, [{Part, N, Large} || N <- lists:seq(1, 100)]) end, lists:seq(1, 5)
    ).

%% The node neither reads nor answers, but stays connected, while it is used.
with_hanging_node(Number, Prepare, Use) ->
    {Peer, Node} = start_node(Number),
    OsPid = integer_to_list(tokamak_peer:os_pid(Peer)),
    try
        Prepared = Prepare(Node),
        [] = os:cmd("kill -STOP " ++ OsPid),
        {Microseconds, _} =
            try
                timer:tc(fun() -> Use(Node, Prepared) end)
            after
                [] = os:cmd("kill -CONT " ++ OsPid)
            end,
        ?assert(Microseconds div 1000 < ?BEFORE_IT_IS_LOST),
        {ok, _} = application:ensure_all_started(tokamak),
        nothing_is_left_on([node(), Node])
    after
        tokamak_peer:end_peer(Peer)
    end.

coordinator(Ref) ->
    {ok, Coordinator, _Owner} = tokamak_pool_spread:find(Ref),
    Coordinator.

witness(Ref) ->
    {links, Links} = process_info(coordinator(Ref), links),
    [Witness] = [Pid || Pid <- Links, {initial_call, {erlang, apply, 2}} =:= process_info(Pid, initial_call)],
    Witness.

a_node_that_is_not_there_is_down(Nodes) ->
    Options = #{nodes => ['nobody@localhost' | names(Nodes)]},
    ?assertEqual({error, {nodedown, 'nobody@localhost'}}, tokamak_pool:run({op, echo}, [{1, []}], Options)),
    nothing_is_left(Nodes).

a_run_ends_with_the_application_of_its_owner(Nodes) ->
    ok = application:set_env(tokamak, drain_timeout, 50),
    Here = [node()],
    There = names(Nodes) -- Here,
    [
        begin
            Ref = tokamak_pool:start({op, op(endless)}, lists:seq(1, 100), #{nodes => Where}),
            receive {tokamak, Ref, {results, _}} -> ok end,
            ok = tokamak_test:quietly(fun() -> application:stop(tokamak) end),
            ?assertMatch({_, {error, shutdown}}, tokamak_test:results(Ref)),
            ok = application:start(tokamak)
        end
     || Where <- [There, Here, Here ++ There]
    ],
    ok = application:unset_env(tokamak, drain_timeout),
    nothing_is_left(Nodes).

nothing_is_left(Nodes) ->
    nothing_is_left_on(names(Nodes)).

nothing_is_left_on(Names) ->
    lists:foreach(
        fun(Node) ->
            until(fun() ->
                #{in_flight := InFlight} = rpc:call(Node, tokamak, stats, []),
                InFlight =:= 0 andalso rpc:call(Node, supervisor, which_children, [tokamak_pool_sup]) =:= []
            end)
        end,
        Names
    ).
