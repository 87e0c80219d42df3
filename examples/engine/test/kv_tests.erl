%% SPDX-License-Identifier: Apache-2.0
-module(kv_tests).

-include_lib("eunit/include/eunit.hrl").

kv_test_() ->
    {setup, fun start/0, fun stop/1, fun({_File, Store}) ->
        [
            {"a value that was put is got", fun() -> a_value_that_was_put_is_got(Store) end},
            {"a value is read again after a restart", fun() -> a_value_is_read_after_a_restart(Store) end},
            {"a cached value costs no message", fun() -> a_cached_value_costs_no_message(Store) end},
            {"a missing key is an error with its kind", fun() -> a_missing_key_is_an_error(Store) end},
            {"a path that cannot be is an error with its kind", fun a_bad_path_is_an_error/0},
            {"a caller waits for a key", fun() -> a_caller_waits_for_a_key(Store) end},
            {"a scan gives a prefix in order", fun() -> a_scan_gives_a_prefix_in_order(Store) end},
            {"a scan that is closed ends", fun() -> a_scan_that_is_closed_ends(Store) end},
            {"a transaction is made as a whole", fun() -> a_transaction_is_made_as_a_whole(Store) end},
            {"a session lives on", fun() -> a_session_lives_on(Store) end},
            {"a panic is an error", fun() -> a_panic_is_an_error(Store) end},
            {"a value without a term is an error", fun a_value_without_a_term_is_an_error/0},
            {"wrong arguments are explained", fun() -> wrong_arguments_are_explained(Store) end},
            {"the operations are listed", fun the_operations_are_listed/0}
        ]
    end}.

start() ->
    {ok, _} = application:ensure_all_started(tokamak),
    File = filename:join("/tmp", "kv_" ++ os:getpid() ++ ".redb"),
    _ = file:delete(File),
    {ok, Store} = kv:open(File),
    {File, Store}.

stop({File, _Store}) ->
    ok = application:stop(tokamak),
    file:delete(File).

a_value_that_was_put_is_got(Store) ->
    Large = binary:copy(<<"value">>, 100000),
    [
        begin
            ok = kv:put(Store, <<"key">>, Value),
            ?assertEqual({ok, Value}, kv:get(Store, <<"key">>))
        end
     || Value <- [<<>>, <<"value">>, Large]
    ],
    ok = kv:delete(Store, <<"key">>).

a_value_is_read_after_a_restart(Store) ->
    ok = kv:put(Store, <<"stays">>, <<"here">>),
    ok = application:stop(tokamak),
    ?assertEqual({error, shutdown}, kv:put(Store, <<"stays">>, <<"not">>)),
    ok = application:start(tokamak),
    ?assertEqual({ok, <<"here">>}, kv:get(Store, <<"stays">>)).

a_cached_value_costs_no_message(Store) ->
    ok = kv:put(Store, <<"cached">>, <<"value">>),
    1 = erlang:trace(self(), true, ['receive', {tracer, Tracer = spawn(fun count/0)}]),
    [{ok, <<"value">>} = kv:get(Store, <<"cached">>) || _ <- lists:seq(1, 100)],
    1 = erlang:trace(self(), false, ['receive']),
    Tracer ! {count, self()},
    receive
        {counted, Count} -> ?assertEqual(0, Count)
    end.

count() -> count(0).

count(Count) ->
    receive
        {count, From} -> From ! {counted, Count};
        _Traced -> count(Count + 1)
    end.

a_missing_key_is_an_error(Store) ->
    ?assertEqual({error, {not_found, <<"there is no such key">>}}, kv:get(Store, <<"none">>)).

a_bad_path_is_an_error() ->
    ?assertMatch({error, {database, _}}, kv:open("/there/is/no/such/directory")).

a_caller_waits_for_a_key(Store) ->
    ?assertEqual({error, timeout}, kv:wait_for(Store, <<"later">>, 10)),
    Self = self(),
    spawn_link(fun() -> Self ! {waited, kv:wait_for(Store, <<"later">>, 5000)} end),
    ok = kv:put(Store, <<"other">>, <<>>),
    ok = kv:put(Store, <<"later">>, <<"now">>),
    receive
        {waited, Result} -> ?assertEqual({ok, <<"now">>}, Result)
    end.

a_scan_gives_a_prefix_in_order(Store) ->
    Pairs = [{<<"scan ", N:32>>, <<N>>} || N <- lists:seq(1, 500)],
    {ok, 500} = kv:transaction(Store, [{put, Key, Value} || {Key, Value} <- lists:reverse(Pairs)]),
    Collect = fun(Pair, Collected) -> [Pair | Collected] end,
    ?assertEqual({ok, lists:reverse(Pairs)}, kv:fold(Collect, [], Store, <<"scan ">>)),
    ?assertEqual({ok, []}, kv:fold(Collect, [], Store, <<"no such prefix">>)).

a_scan_that_is_closed_ends(Store) ->
    Scan = tokamak:stream({kv_engine, scan}, [Store, <<"scan ">>], #{window => 1}),
    {ok, {<<"scan ", 1:32>>, <<1>>}} = tokamak:next(Scan),
    ok = tokamak:close(Scan),
    ?assertEqual({error, closed}, tokamak:next(Scan)).

a_transaction_is_made_as_a_whole(Store) ->
    {ok, 2} = kv:transaction(Store, [{put, <<"a">>, <<"1">>}, {put, <<"b">>, <<"2">>}]),
    {ok, 2} = kv:transaction(Store, [{delete, <<"a">>}, {put, <<"b">>, <<"3">>}]),
    ?assertMatch({error, {not_found, _}}, kv:get(Store, <<"a">>)),
    ?assertEqual({ok, <<"3">>}, kv:get(Store, <<"b">>)),
    ?assertError(badarg, kv:transaction(Store, [{put, <<"a">>, <<"4">>}, {move, <<"a">>}])),
    ?assertMatch({error, {not_found, _}}, kv:get(Store, <<"a">>)).

a_session_lives_on(Store) ->
    Session = tokamak:open({kv_engine, session}, [Store]),
    ok = tokamak:push(Session, {put, <<"session">>, <<"1">>}),
    ok = tokamak:push(Session, abort),
    ?assertEqual({ok, {aborted, 1}}, tokamak:next(Session)),
    ok = tokamak:push(Session, {put, <<"session">>, <<"2">>}),
    ok = tokamak:push(Session, commit),
    ?assertEqual({ok, {committed, 1}}, tokamak:next(Session)),
    ?assertEqual({ok, <<"2">>}, kv:get(Store, <<"session">>)),
    ok = tokamak:close(Session).

a_panic_is_an_error(Store) ->
    ok = kv:put(Store, <<"five">>, <<"12345">>),
    ?assertEqual({ok, 5}, tokamak:call({kv_engine, length}, [Store, <<"five">>])),
    {error, {panic, Text}} = tokamak:call({kv_engine, length}, [Store, <<"none">>]),
    ?assertMatch({match, _}, re:run(Text, "the key is there")),
    ?assertEqual({ok, <<"12345">>}, kv:get(Store, <<"five">>)).

a_value_without_a_term_is_an_error() ->
    ?assertEqual({ok, 50}, tokamak:call({kv_engine, percent}, [1, 2])),
    ?assertEqual({error, {encode, <<"200 percent">>}}, tokamak:call({kv_engine, percent}, [2, 1])).

wrong_arguments_are_explained(Store) ->
    ?assertError(badarg, kv:get(Store, not_a_binary)),
    ?assertError(badarg, kv:get(make_ref(), <<"key">>)),
    ?assertEqual(
        {error, {unknown_operation, {kv_engine, none}}},
        tokamak:call({kv_engine, none}, [])
    ).

the_operations_are_listed() ->
    Kinds = [{Name, Kind} || #{engine := kv_engine, name := Name, kind := Kind} <- tokamak:operations()],
    Expected = [{get, eager}, {open, blocking}, {scan, stream}, {session, duplex}, {wait_for, async}],
    ?assertEqual([], Expected -- Kinds).
