%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_call_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, key/0, counted/1, elapsed/1, started/1, result/1]).

call_test_() ->
    call_fixture:tests([
        fun an_eager_operation_that_is_ready_sends_no_message/0,
        fun an_eager_operation_that_waits_goes_on_in_the_runtime/0,
        fun an_operation_of_the_runtime_returns_its_value/0,
        fun a_blocking_operation_returns_its_value/0,
        fun an_operation_may_go_back_to_the_runtime_a_thousand_times/0,
        fun every_type_is_decoded_and_encoded/0,
        fun derived_types_are_encoded/0,
        fun nothing_is_ok/0,
        fun the_built_in_operations_give_what_they_promise/0,
        fun a_call_that_times_out_is_cancelled_at_once/0,
        fun a_time_out_of_zero_still_returns_what_is_ready/0,
        fun a_limit_bounds_how_many_run_at_once/0,
        fun a_limit_bounds_eager_operations_from_their_first_poll/0,
        fun eager_operations_that_wait_for_each_other_within_their_limit_all_end/0,
        fun an_eager_operation_with_room_in_its_limit_sends_no_message/0,
        fun work_that_was_handed_over_ends_with_the_call/0,
        fun calls_have_numbers_of_their_own/0,
        fun a_slow_first_poll_is_counted_under_its_name/0,
        fun a_cast_runs_without_its_caller/0,
        fun a_large_binary_is_not_copied/0,
        fun messages_in_the_mailbox_do_not_slow_a_call/0
    ]).

an_eager_operation_that_is_ready_sends_no_message() ->
    %% An engine's first call starts its runtime.
    {ok, _} = tokamak:call(op(later), [0, 0]),
    Messages = call_fixture:traced_messages(fun() ->
        [{ok, N} = tokamak:call(echo, [N]) || N <- lists:seq(1, 100)],
        [{ok, N} = tokamak:call(op(later), [N, 0]) || N <- lists:seq(1, 100)]
    end),
    ?assertEqual(0, Messages).

an_eager_operation_that_waits_goes_on_in_the_runtime() ->
    ?assertEqual({ok, {a, "term"}}, tokamak:call(op(later), [{a, "term"}, 2000])),
    ?assertEqual({ok, 50}, tokamak:call(op(yields_eagerly), [50])).

an_operation_of_the_runtime_returns_its_value() ->
    ?assertEqual({ok, <<"value">>}, tokamak:call(op(later_in_runtime), [<<"value">>, 0])),
    ?assertEqual({ok, ok}, tokamak:call(sleep, [5], #{timeout => infinity})).

a_blocking_operation_returns_its_value() ->
    ?assertEqual({ok, ok}, tokamak:call(op(block), [key(), 5])).

an_operation_may_go_back_to_the_runtime_a_thousand_times() ->
    ?assertEqual({ok, 1000}, tokamak:call(op(yields), [1000])).

every_type_is_decoded_and_encoded() ->
    Terms = [make_ref(), self(), #{key => [1.5, {}]}, <<1:3>>, fun lists:map/2, 1 bsl 70, -1, '', [], "list"],
    [?assertEqual({ok, Term}, tokamak:call(echo, [Term])) || Term <- Terms],
    [?assertEqual({ok, Term}, tokamak:call(op(later_in_runtime), [Term, 10])) || Term <- Terms],
    Large = binary:copy(<<1, 2, 3, 4>>, 100000),
    Args = [-7, 2.5, <<"täxt"/utf8>>, [0, 65535], nil, <<"/a path/\xff">>, {any, "term"}, Large],
    {ok, {Integer, Float, Text, List, Option, Path, Rest}} = tokamak:call(op(decoded), Args),
    ?assertEqual(Args, [Integer, Float, Text, List, Option, Path | tuple_to_list(Rest)]),
    Collected = {[1, 2, 3], <<"text">>, nil, #{<<"minus">> => -(1 bsl 63)}},
    ?assertEqual({ok, Collected}, tokamak:call(op(collected), [])).

derived_types_are_encoded() ->
    Point = #{'__struct__' => 'Elixir.Point', x => 0.5, y => -0.5},
    Derived = {#{id => 1, name => <<"one">>}, Point, {-1, true}, red, {circle, 3}},
    ?assertEqual({ok, Derived}, tokamak:call(op(derived), [])).

nothing_is_ok() ->
    [?assertEqual({ok, ok}, tokamak:call(op(Name), [])) || Name <- [nothing, return, succeeds, succeeds_eagerly]].

the_built_in_operations_give_what_they_promise() ->
    File = code:which(?MODULE),
    {ok, Content} = file:read_file(File),
    Hash = string:lowercase(binary:encode_hex(crypto:hash(sha256, Content))),
    ?assertEqual({ok, Hash}, tokamak:call(hash_file, [sha256, File])),
    ?assertEqual({ok, Hash}, tokamak:call(hash_file, [File, sha256])),
    ?assertMatch({ok, <<_:128/binary>>}, tokamak:call(hash_file, [sha512, File])),
    ?assertMatch({ok, <<_:64/binary>>}, tokamak:call(hash_file, [blake3, File])),
    {ok, Names} = tokamak:call(list_dir, [filename:dirname(File)]),
    ?assert(lists:member(list_to_binary(filename:basename(File)), Names)),
    ?assertMatch({error, {enoent, _}}, tokamak:call(list_dir, [<<"/there/is/none">>])),
    [?assertMatch({ok, [_ | _]}, tokamak:call(resolve_host, [Name])) || Name <- [<<"localhost">>, "localhost"]].

a_call_that_times_out_is_cancelled_at_once() ->
    Key = key(),
    ?assertEqual({error, timeout}, tokamak:call(op(never), [Key], #{timeout => 20})),
    ?assertEqual({error, timeout}, tokamak:call(op(never_eagerly), [Key], #{timeout => 20})),
    call_fixture:until(fun() -> element(3, counted(Key)) =:= 2 andalso element(1, counted(Key)) =:= 0 end).

a_time_out_of_zero_still_returns_what_is_ready() ->
    ?assertEqual({ok, 1}, tokamak:call(op(later), [1, 0], #{timeout => 0})),
    ?assertEqual({error, timeout}, tokamak:call(op(never), [key()], #{timeout => 0})).

a_limit_bounds_how_many_run_at_once() ->
    [Async, Blocking] = [key(), key()],
    {ok, _} = tokamak:gather([{op(two_at_once), [Async, 2]} || _ <- lists:seq(1, 20)]),
    {ok, _} = tokamak:gather([{op(block_one), [Blocking, 1]} || _ <- lists:seq(1, 10)]),
    ?assertEqual({0, 2, 20}, counted(Async)),
    ?assertEqual({0, 1, 10}, counted(Blocking)).

a_limit_bounds_eager_operations_from_their_first_poll() ->
    [Async, Call] = [key(), key()],
    Refs = [tokamak:async(op(two_at_once_eagerly), [Async, 5]) || _ <- lists:seq(1, 10)],
    [?assertEqual({ok, ok}, tokamak:await(Ref)) || Ref <- Refs],
    ?assertEqual({0, 2, 10}, counted(Async)),
    Callers = [started(fun() -> tokamak:call(op(two_at_once_eagerly), [Call, 5]) end) || _ <- lists:seq(1, 10)],
    [?assertEqual({ok, ok}, result(Caller)) || Caller <- Callers],
    ?assertEqual({0, 2, 10}, counted(Call)).

eager_operations_that_wait_for_each_other_within_their_limit_all_end() ->
    Sequence = fun() -> [{ok, ok} = tokamak:call(op(locks_eagerly), [200]) || _ <- lists:seq(1, 50)] end,
    Callers = [started(Sequence) || _ <- lists:seq(1, 8)],
    [?assertEqual(50, length(result(Caller))) || Caller <- Callers].

an_eager_operation_with_room_in_its_limit_sends_no_message() ->
    Key = key(),
    Messages = call_fixture:traced_messages(fun() ->
        [{ok, ok} = tokamak:call(op(two_at_once_eagerly), [Key, 0]) || _ <- lists:seq(1, 10)]
    end),
    ?assertEqual({0, {0, 1, 10}}, {Messages, counted(Key)}).

work_that_was_handed_over_ends_with_the_call() ->
    [Ended, Ready, Pending, Async] = Keys = [key() || _ <- lists:seq(1, 4)],
    [{ok, ok} = tokamak:call(op(hands_over), [Ended]) || _ <- lists:seq(1, 10)],
    [{ok, ok} = tokamak:call(op(hands_over_eagerly), [Ready, true]) || _ <- lists:seq(1, 10)],
    {error, timeout} = tokamak:call(op(hands_over_eagerly), [Pending, false], #{timeout => 10}),
    ok = tokamak:cancel(tokamak:async(op(hands_over_eagerly), [Async, false])),
    [call_fixture:until(fun() -> element(1, counted(Key)) =:= 0 end) || Key <- Keys].

calls_have_numbers_of_their_own() ->
    {ok, Gathered} = tokamak:gather([{op(call_id), []} || _ <- [1, 2, 3]]),
    {ok, Single} = tokamak:call(op(call_id), []),
    {ok, Items, _} = tokamak_pool:run({op, op(call_id_of_item)}, [1, 2, 3], #{}),
    {ok, Loop} = tokamak_loop:new(),
    ok = tokamak_loop:submit_many(Loop, [{N, op(call_id), []} || N <- [1, 2, 3]]),
    Submitted = [Id || {_, async_result, Id} <- call_fixture:collect(Loop, 3)],
    ok = tokamak_loop:destroy(Loop),
    Ids = [Single | Gathered ++ Submitted ++ [Id || {_, {ok, Id}} <- Items]],
    ?assert(lists:all(fun is_integer/1, Ids)),
    ?assertEqual({10, 10}, {length(Ids), length(lists:usort(Ids))}).

a_slow_first_poll_is_counted_under_its_name() ->
    {ok, ok} = tokamak:call(op(holds_scheduler), [5]),
    #{engines := #{tokamak_test_engine := #{slow_polls := Slow}}} = tokamak:stats(),
    ?assertMatch({_, 1}, lists:keyfind(<<"holds_scheduler">>, 1, Slow)).

a_cast_runs_without_its_caller() ->
    Key = key(),
    {Caller, Monitor} = spawn_monitor(fun() -> ok = tokamak:cast(op(two_at_once), [Key, 50]) end),
    receive
        {'DOWN', Monitor, process, Caller, Reason} -> ?assertEqual(normal, Reason)
    end,
    call_fixture:until(fun() -> counted(Key) =:= {0, 1, 1} end),
    ?assertEqual({error, {unknown_operation, none}}, tokamak:cast(none, [])).

%% 3 GiB of results, if they were copied.
a_large_binary_is_not_copied() ->
    {ok, First} = tokamak:call(op(shared_bytes), []),
    Before = call_fixture:resident_mib(),
    Eager = [tokamak:call(op(shared_bytes), []) || _ <- lists:seq(1, 24)],
    {ok, Gathered} = tokamak:gather([{op(shared_bytes_in_runtime), []} || _ <- lists:seq(1, 24)]),
    ?assert(call_fixture:resident_mib() - Before < 128),
    ?assert(lists:all(fun({ok, Bytes}) -> byte_size(Bytes) =:= 64 bsl 20 end, Eager)),
    ?assert(lists:all(fun(Bytes) -> byte_size(Bytes) =:= 64 bsl 20 end, Gathered)),
    ?assertEqual(7, binary:last(First)).

messages_in_the_mailbox_do_not_slow_a_call() ->
    Calls = fun() -> [{ok, N} = tokamak:call(op(later_in_runtime), [N, 0]) || N <- lists:seq(1, 2000)] end,
    Calls(),
    {Empty, _} = elapsed(Calls),
    [self() ! {message, N} || N <- lists:seq(1, 100000)],
    {Full, _} = elapsed(Calls),
    flush(100000),
    %% A scan of the mailbox takes half a millisecond: a second in all.
    ok = tokamak_test:in_time(Full, 3 * Empty + 100).

flush(0) -> ok;
flush(Count) -> receive {message, _} -> flush(Count - 1) end.
