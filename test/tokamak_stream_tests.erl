%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_stream_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, key/0, counted/1, live/1, until/1, elapsed/1]).

-define(MIB, (1 bsl 20)).

stream_test_() ->
    call_fixture:tests([
        fun items_come_in_order_and_then_done_once/0,
        fun a_fold_sees_every_item/0,
        fun a_fold_closes_its_stream_when_its_function_fails/0,
        fun a_producer_is_ahead_by_its_window_and_no_more/0,
        fun a_window_of_one_alternates/0,
        fun a_large_window_is_filled_once/0,
        fun an_error_is_the_last_item_once/0,
        fun a_panic_is_the_last_item_once/0,
        fun an_item_that_cannot_be_encoded_ends_the_stream/0,
        fun an_error_of_the_opening_passes_through/0,
        fun a_time_out_leaves_the_stream_open/0,
        fun a_wait_of_zero_finds_what_is_there/0,
        fun close_cancels_the_producer_and_no_message_comes/0,
        fun items_in_the_buffer_are_dropped_by_close/0,
        fun close_after_the_end_is_ok/0,
        fun another_process_can_neither_take_nor_close/0,
        fun a_stream_takes_no_input/0,
        fun many_streams_run_side_by_side/0,
        fun streams_that_come_at_run_time_are_merged/0,
        fun waits_that_time_out_at_random_lose_no_item/0,
        fun a_quarter_of_a_gigabyte_flows_through_a_small_window_in_flat_memory/0
    ]).

items_come_in_order_and_then_done_once() ->
    Stream = tokamak:stream(count, [3, 0]),
    ?assertEqual([{ok, 1}, {ok, 2}, {ok, 3}, done], [tokamak:next(Stream) || _ <- lists:seq(1, 4)]),
    ?assertEqual({error, closed}, tokamak:next(Stream)),
    Slow = tokamak:stream(count, [3, 5]),
    ?assertEqual([{ok, 1}, {ok, 2}, {ok, 3}, done], [tokamak:next(Slow) || _ <- lists:seq(1, 4)]).

streams_that_come_at_run_time_are_merged() ->
    Counts = lists:seq(1, 100),
    {ok, Items} = tokamak:fold(fun(Item, Items) -> [Item | Items] end, [], tokamak:stream(op(merged), [Counts])),
    ?assertEqual(lists:sort([Item || Count <- Counts, Item <- lists:seq(1, Count)]), lists:sort(Items)),
    ?assertEqual({ok, []}, tokamak:fold(fun(Item, Rest) -> [Item | Rest] end, [], tokamak:stream(op(merged), [[]]))).

a_fold_sees_every_item() ->
    Sum = fun(Item, Sum) -> Sum + Item end,
    ?assertEqual({ok, 50005000}, tokamak:fold(Sum, 0, tokamak:stream(count, [10000, 0]))),
    ?assertEqual({ok, empty}, tokamak:fold(Sum, empty, tokamak:stream(count, [0, 0]))).

a_fold_closes_its_stream_when_its_function_fails() ->
    [
        begin
            Stream = tokamak:stream(op(numbers), [key()]),
            Fail = fun(_, _) -> erlang:raise(Class, Reason, []) end,
            ?assertException(Class, Reason, tokamak:fold(Fail, 0, Stream)),
            ?assertEqual({error, closed}, tokamak:next(Stream))
        end
     || {Class, Reason} <- [{throw, stop}, {error, badarg}, {error, not_owner}, {exit, normal}]
    ].

a_producer_is_ahead_by_its_window_and_no_more() ->
    Key = key(),
    Stream = tokamak:stream(op(numbers), [Key], #{window => 16}),
    [
        begin
            {ok, Consumed} = tokamak:next(Stream),
            ?assert(produced(Key) =< Consumed + 16)
        end
     || Consumed <- lists:seq(1, 1000)
    ],
    until(fun() -> produced(Key) > 1000 end),
    ok = tokamak:close(Stream).

a_window_of_one_alternates() ->
    Key = key(),
    Stream = tokamak:stream(op(numbers), [Key], #{window => 1}),
    [
        begin
            {ok, Consumed} = tokamak:next(Stream),
            until(fun() -> produced(Key) =:= Consumed + 1 end)
        end
     || Consumed <- lists:seq(1, 50)
    ],
    ok = tokamak:close(Stream).

a_large_window_is_filled_once() ->
    Key = key(),
    Stream = tokamak:stream(op(numbers), [Key], #{window => 5000}),
    until(fun() -> produced(Key) =:= 5000 end),
    {ok, 1} = tokamak:next(Stream),
    ok = tokamak:close(Stream),
    ?assert(produced(Key) =< 5001).

produced(Key) ->
    element(3, counted(Key)).

an_error_is_the_last_item_once() ->
    Stream = tokamak:stream(op(fails_after), [2]),
    Taken = [tokamak:next(Stream) || _ <- lists:seq(1, 4)],
    ?assertEqual([{ok, 1}, {ok, 2}, {error, {exhausted, <<"no more">>}}, {error, closed}], Taken),
    Fold = tokamak:fold(fun(Item, Items) -> [Item | Items] end, [], tokamak:stream(op(fails_after), [20])),
    ?assertEqual({error, {exhausted, <<"no more">>}}, Fold).

a_panic_is_the_last_item_once() ->
    Stream = tokamak:stream(op(panics_after), [1]),
    ?assertEqual({ok, 1}, tokamak:next(Stream)),
    {Elapsed, End} = elapsed(fun() -> tokamak:next(Stream) end),
    ?assertEqual({error, {panic, <<"after 1">>}}, End),
    ?assertEqual({error, closed}, tokamak:next(Stream)),
    Early = tokamak:stream(op(panics_at_open), [<<"early">>]),
    ?assertEqual({error, {panic, <<"early">>}}, tokamak:next(Early)),
    ok = tokamak_test:in_time(Elapsed, 100).

an_item_that_cannot_be_encoded_ends_the_stream() ->
    Stream = tokamak:stream(op(unencodable_items), []),
    ?assertEqual({error, {encode, <<"in the encoder">>}}, tokamak:next(Stream)),
    ?assertEqual({error, closed}, tokamak:next(Stream)).

an_error_of_the_opening_passes_through() ->
    Error = tokamak:stream(none, []),
    ?assertEqual({error, {unknown_operation, none}}, Error),
    ?assertEqual(Error, tokamak:next(Error)),
    ?assertEqual(Error, tokamak:fold(fun(_, Acc) -> Acc end, 0, Error)),
    ?assertEqual(Error, tokamak:push(Error, item)),
    ?assertEqual(ok, tokamak:close(Error)).

a_time_out_leaves_the_stream_open() ->
    Stream = tokamak:stream(count, [2, 300]),
    ?assertEqual({error, timeout}, tokamak:next(Stream, 5)),
    ?assertEqual([{ok, 1}, {ok, 2}, done], [tokamak:next(Stream) || _ <- [1, 2, 3]]).

a_wait_of_zero_finds_what_is_there() ->
    Stream = tokamak:stream(op(silence), [key()]),
    ?assertEqual({error, timeout}, tokamak:next(Stream, 0)),
    ok = tokamak:close(Stream),
    Key = key(),
    Numbers = tokamak:stream(op(numbers), [Key]),
    until(fun() -> produced(Key) =:= 16 end),
    ?assertEqual({ok, 1}, tokamak:next(Numbers, 0)),
    ok = tokamak:close(Numbers).

close_cancels_the_producer_and_no_message_comes() ->
    Key = key(),
    Stream = tokamak:stream(op(silence), [Key]),
    ?assertEqual({error, timeout}, tokamak:next(Stream, 5)),
    ?assertEqual(1, live(Key)),
    ?assertEqual(ok, tokamak:close(Stream)),
    until(fun() -> live(Key) =:= 0 end),
    ?assertEqual({error, closed}, tokamak:next(Stream)).

items_in_the_buffer_are_dropped_by_close() ->
    Key = key(),
    Stream = tokamak:stream(op(numbers), [Key]),
    until(fun() -> produced(Key) =:= 16 end),
    ok = tokamak:close(Stream),
    ?assertEqual({error, closed}, tokamak:next(Stream)).

close_after_the_end_is_ok() ->
    Stream = tokamak:stream(count, [0, 0]),
    done = tokamak:next(Stream),
    ?assertEqual(ok, tokamak:close(Stream)),
    ?assertEqual(ok, tokamak:close(Stream)).

another_process_can_neither_take_nor_close() ->
    Stream = tokamak:stream(count, [1, 0]),
    Other = call_fixture:started(fun() ->
        ?assertError(not_owner, tokamak:next(Stream)),
        ?assertError(not_owner, tokamak:push(Stream, 1)),
        ?assertError(not_owner, tokamak:close(Stream)),
        ?assertError(not_owner, tokamak:fold(fun(_, Acc) -> Acc end, 0, Stream))
    end),
    call_fixture:result(Other),
    ?assertEqual([{ok, 1}, done], [tokamak:next(Stream) || _ <- [1, 2]]).

a_stream_takes_no_input() ->
    Stream = tokamak:stream(count, [1, 0]),
    ?assertEqual({error, {wrong_kind, stream}}, tokamak:push(Stream, 1)),
    ok = tokamak:close(Stream).

many_streams_run_side_by_side() ->
    Streams = [tokamak:stream(count, [100, 0], #{window => N}) || N <- lists:seq(1, 200)],
    Sums = [tokamak:fold(fun(Item, Sum) -> Item + Sum end, 0, Stream) || Stream <- Streams],
    ?assertEqual([{ok, 5050}], lists:usort(Sums)).

waits_that_time_out_at_random_lose_no_item() ->
    Stream = tokamak:stream(count, [300, 1]),
    ?assertEqual(lists:seq(1, 300), take_impatiently(Stream)).

take_impatiently(Stream) ->
    case tokamak:next(Stream, rand:uniform(3) - 1) of
        {ok, Item} -> [Item | take_impatiently(Stream)];
        {error, timeout} -> take_impatiently(Stream);
        done -> []
    end.

%% scripts/soak.sh does the same with 10 GiB.
a_quarter_of_a_gigabyte_flows_through_a_small_window_in_flat_memory() ->
    Stream = tokamak:stream(op(binaries), [256, ?MIB], #{window => 16}),
    Before = call_fixture:resident_mib(),
    {ok, {Bytes, Most}} = tokamak:fold(fun measure/2, {0, 0}, Stream),
    ?assertEqual(256 * ?MIB, Bytes),
    ?assert(Most - Before < 100).

measure(Item, {Bytes, Most}) ->
    case Bytes rem (16 * ?MIB) of
        0 -> erlang:garbage_collect();
        _ -> ok
    end,
    {Bytes + byte_size(Item), max(Most, call_fixture:resident_mib())}.
