%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_engines_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, key/0, until/1]).

engines_test_() ->
    call_fixture:tests(#{worker_threads => 3, max_blocking_threads => 5, max_in_flight => 1000}, [
        fun the_built_in_operations_are_listed_with_arity_and_kind/0,
        fun an_engine_is_listed_from_its_first_call_on/0,
        fun two_operations_of_one_name_are_found/0,
        fun other_nodes_find_an_engine_after_a_crash_of_the_process_that_announced_it/0,
        fun stats_count_the_calls_of_all_engines/0,
        fun stats_show_what_the_runtimes_were_configured_with/0
    ]).

the_built_in_operations_are_listed_with_arity_and_kind() ->
    Listed = [
        {Name, Arity, Kind}
     || #{engine := tokamak_nif, name := Name, arity := Arity, kind := Kind} <- tokamak:operations()
    ],
    Promised = [
        {count, 2, stream},
        {echo, 1, eager},
        {hash_file, 2, blocking},
        {list_dir, 1, blocking},
        {resolve_host, 1, blocking},
        {sleep, 1, async}
    ],
    ?assertEqual([], Promised -- Listed).

an_engine_is_listed_from_its_first_call_on() ->
    {ok, _} = tokamak:call(op(nothing), []),
    Listed = [
        {Name, Arity, Kind}
     || #{engine := tokamak_test_engine, name := Name, arity := Arity, kind := Kind} <- tokamak:operations()
    ],
    Some = [{sums, 1, duplex}, {numbers, 1, stream}, {block, 2, blocking}, {later, 2, eager}, {fails, 1, async}],
    ?assertEqual([], Some -- Listed).

%% An engine with such is not loaded; this library is no engine.
two_operations_of_one_name_are_found() ->
    ?assertEqual(<<"found_twice">>, tokamak_test_nif:name_of_two()).

other_nodes_find_an_engine_after_a_crash_of_the_process_that_announced_it() ->
    {ok, _} = tokamak:call(op(nothing), []),
    Announced = fun() -> pg:get_members(tokamak, {engine, tokamak_test_engine}) end,
    Before = Announced(),
    ?assertEqual([whereis(tokamak_engines)], Before),
    tokamak_test:kill(hd(Before)),
    until(fun() -> Announced() =/= [] andalso Announced() =/= Before end).

stats_count_the_calls_of_all_engines() ->
    Ops = [{sleep, [60000]}, {op(never), [key()]}, {op(never), [key()]}],
    Refs = [tokamak:async(Op, Args) || {Op, Args} <- Ops],
    #{in_flight := InFlight, owners := Owners, runtime := Base, engines := Engines} = tokamak:stats(),
    ?assertEqual({3, 1}, {InFlight, maps:get(in_flight, Base)}),
    ?assertMatch(#{tokamak_nif := Base, tokamak_test_engine := #{in_flight := 2}}, Engines),
    ?assert(Owners >= 1),
    lists:foreach(fun tokamak:cancel/1, Refs).

stats_show_what_the_runtimes_were_configured_with() ->
    {ok, _} = tokamak:call(op(nothing), []),
    #{engines := #{tokamak_nif := Base, tokamak_test_engine := Other}} = tokamak:stats(),
    Limits = #{max_blocking_threads => 5, max_in_flight => 1000},
    ?assertEqual(Limits#{workers => 3}, maps:with([workers | maps:keys(Limits)], Base)),
    ?assertEqual(Limits#{workers => 2}, maps:with([workers | maps:keys(Limits)], Other)).
