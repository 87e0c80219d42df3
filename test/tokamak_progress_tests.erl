%% SPDX-License-Identifier: Apache-2.0
-module(tokamak_progress_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1, until/1, explanation/1]).

progress_test_() ->
    call_fixture:tests([
        fun the_first_value_comes_at_once/0,
        fun the_latest_value_comes_at_the_end_of_the_interval/0,
        fun completion_comes_at_once_and_frees_the_key/0,
        fun a_status_agrees_with_its_percentage/0,
        fun repeated_completions_are_each_shown/0,
        fun keys_are_terms/0,
        fun a_subscriber_gets_its_key_only/0,
        fun a_subscription_has_its_own_interval/0,
        {timeout, 120, fun values_held_back_are_shown_however_often_it_happens/0},
        fun several_subscriptions_of_a_process_are_told_apart/0,
        fun after_unsubscribe_nothing_comes/0,
        fun only_the_subscriber_unsubscribes/0,
        fun dead_subscribers_are_forgotten/0,
        fun reports_without_subscribers_are_fine/0,
        fun an_operation_reports_under_its_reference/0,
        fun a_submitted_call_reports_under_its_callback_id/0,
        fun a_storm_shows_eleven_a_second_and_loses_no_last_value/0,
        fun an_idle_limiter_takes_no_time/0,
        fun wrong_arguments_are_explained/0
    ]).

configured_test_() ->
    call_fixture:tests(#{progress_interval => 20}, [fun the_interval_is_configured/0]).

the_first_value_comes_at_once() ->
    Ref = subscribe(key),
    ok = tokamak_progress:report(key, 1, 4),
    ?assertEqual([{key, 1, 25}], received(Ref, 0)),
    finish(Ref, key).

the_latest_value_comes_at_the_end_of_the_interval() ->
    Ref = subscribe(key),
    Start = erlang:monotonic_time(millisecond),
    [ok = tokamak_progress:report(key, N, 1000) || N <- lists:seq(0, 500)],
    ?assertEqual([{key, 0, 0}], received(Ref, 0)),
    Elapsed =
        receive
            {tokamak, Ref, {progress, key, #{done := 500, percent := 50}}} ->
                erlang:monotonic_time(millisecond) - Start
        after 5000 -> error(lost)
        end,
    ?assert(Elapsed >= 99),
    finish(Ref, key),
    ok = tokamak_test:in_time(Elapsed, 300).

completion_comes_at_once_and_frees_the_key() ->
    Ref = subscribe(key),
    #{keys := Before} = tokamak_progress:stats(),
    [ok = tokamak_progress:report(key, N, 100) || N <- lists:seq(1, 100)],
    ?assertEqual([{key, 1, 1}, {key, 100, 100}], received(Ref, 0)),
    ?assertMatch(#{keys := Before}, tokamak_progress:stats()),
    ?assertEqual([], received(Ref, 150)),
    finish(Ref, key).

a_status_agrees_with_its_percentage() ->
    Large = 16#FFFFFFFFFFFFFFFF,
    lists:foreach(
        fun agrees/1,
        [{0, 0, 100}, {5, 4, 100}, {Large, Large, 100}, {Large - 1, Large, 99}, {999, 1000, 99}, {0, 7, 0}]
    ).

agrees({Done, Total, Percent}) ->
    Ref = subscribe(key),
    ok = tokamak_progress:report(key, Done, Total),
    Status = maps:get(Percent, #{100 => done}, running),
    receive
        {tokamak, Ref, {progress, key, Value}} ->
            ?assertEqual(#{done => Done, total => Total, percent => Percent, status => Status}, Value)
    after 0 -> error(missing)
    end,
    finish(Ref, key).

repeated_completions_are_each_shown() ->
    Ref = subscribe(key),
    [ok = tokamak_progress:report(key, 1, 1) || _ <- lists:seq(1, 5)],
    ?assertEqual(lists:duplicate(5, {key, 1, 100}), received(Ref, 0)),
    finish(Ref, key).

keys_are_terms() ->
    Ref = tokamak_progress:subscribe(all),
    Keys = [1, 1.0, "key", <<"key">>, {key, [self(), make_ref()]}, #{key => 1}, all, fun() -> ok end],
    Copies = binary_to_term(term_to_binary(lists:droplast(Keys))) ++ [lists:last(Keys)],
    [ok = tokamak_progress:report(Key, 1, 3) || Key <- Keys],
    [ok = tokamak_progress:report(Key, 3, 3) || Key <- Copies],
    Expected = [{Key, 1, 33} || Key <- Keys] ++ [{Key, 3, 100} || Key <- Keys],
    ?assertEqual(Expected, received(Ref, 0)),
    ok = tokamak_progress:unsubscribe(Ref).

a_subscriber_gets_its_key_only() ->
    Ref = subscribe({job, 1}),
    ok = tokamak_progress:report({job, 2}, 1, 1),
    ok = tokamak_progress:report({job, 1}, 1, 1),
    ?assertEqual([{{job, 1}, 1, 100}], received(Ref, 0)),
    finish(Ref, {job, 1}).

a_subscription_has_its_own_interval() ->
    Fast = tokamak_progress:subscribe(key, #{interval => 10}),
    Slow = tokamak_progress:subscribe(key, #{interval => 100000}),
    Report = fun(N) ->
        ok = tokamak_progress:report(key, N, 1000),
        receive
        after 1 -> ok
        end
    end,
    {Microseconds, ok} = timer:tc(fun() -> lists:foreach(Report, lists:seq(0, 99)) end),
    Shown = length(received(Fast, 50)),
    %% More than with the interval of the application, unless that took a second; and no more than with its own.
    ?assert(Shown > min(Microseconds div 100000, 10) + 2),
    ?assert(Shown =< Microseconds div 10000 + 2),
    ?assertMatch([{key, 0, 0}], received(Slow, 0)),
    ok = tokamak_progress:unsubscribe(Fast),
    ok = tokamak_progress:report(key, 1000, 1000),
    ?assertMatch([{key, 1000, 100}], received(Slow, 0)),
    ok = tokamak_progress:unsubscribe(Slow).

values_held_back_are_shown_however_often_it_happens() ->
    Ref = tokamak_progress:subscribe(key, #{interval => 2}),
    lists:foreach(
        fun(N) ->
            ok = tokamak_progress:report(key, 2 * N, 10000),
            ok = tokamak_progress:report(key, 2 * N + 1, 10000),
            ok = shown(Ref, 2 * N + 1)
        end,
        lists:seq(1, 2000)
    ),
    finish(Ref, key).

shown(Ref, Done) ->
    receive
        {tokamak, Ref, {progress, key, #{done := Done}}} -> ok;
        {tokamak, Ref, _Earlier} -> shown(Ref, Done)
    after 30000 -> error({not_shown, Done})
    end.

several_subscriptions_of_a_process_are_told_apart() ->
    [One, Two] = [subscribe(key), tokamak_progress:subscribe(all)],
    ok = tokamak_progress:report(key, 1, 1),
    ?assertEqual([{key, 1, 100}], received(One, 0)),
    ?assertEqual([{key, 1, 100}], received(Two, 0)),
    ok = tokamak_progress:unsubscribe(One),
    ok = tokamak_progress:report(key, 1, 1),
    ?assertEqual([], received(One, 0)),
    ?assertEqual([{key, 1, 100}], received(Two, 0)),
    finish(Two, key).

after_unsubscribe_nothing_comes() ->
    Reporters = [spawn_link(fun() -> report_for_ever(N) end) || N <- lists:seq(1, 4)],
    lists:foreach(
        fun(_) ->
            Ref = tokamak_progress:subscribe(all, #{interval => 1}),
            receive
            after 1 -> ok
            end,
            ok = tokamak_progress:unsubscribe(Ref),
            ?assertEqual({message_queue_len, 0}, process_info(self(), message_queue_len))
        end,
        lists:seq(1, 100)
    ),
    [begin unlink(Reporter), exit(Reporter, kill) end || Reporter <- Reporters],
    ok.

report_for_ever(N) ->
    ok = tokamak_progress:report(N, rand:uniform(9), 10),
    report_for_ever(N).

only_the_subscriber_unsubscribes() ->
    Ref = subscribe(key),
    {_, Monitor} = spawn_monitor(fun() -> ?assertError(not_owner, tokamak_progress:unsubscribe(Ref)) end),
    receive {'DOWN', Monitor, process, _, Reason} -> ?assertEqual(normal, Reason) end,
    finish(Ref, key),
    ok = tokamak_progress:unsubscribe(Ref).

dead_subscribers_are_forgotten() ->
    Subscribe = fun() ->
        [tokamak_progress:subscribe({key, N}, #{interval => 1 + N}) || N <- lists:seq(1, 100)],
        [tokamak_progress:subscribe(Key) || Key <- [all, a, b]]
    end,
    {Pid, Monitor} = spawn_monitor(Subscribe),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end,
    until(fun() -> maps:get(subscribers, tokamak_progress:stats()) =:= 0 end).

reports_without_subscribers_are_fine() ->
    [ok = tokamak_progress:report({key, N}, M, 10) || N <- lists:seq(1, 1000), M <- lists:seq(1, 10)],
    ?assertMatch(#{subscribers := 0}, tokamak_progress:stats()).

an_operation_reports_under_its_reference() ->
    Ref = tokamak_progress:subscribe(all),
    Call = tokamak:async(op(report_progress), [100000]),
    {ok, true} = tokamak:await(Call),
    %% A subscriber to all also sees what other tests left.
    Shown = [Update || {Key, _, _} = Update <- received(Ref, 0), Key =:= Call],
    ?assertMatch({Call, 1, 0}, hd(Shown)),
    ?assertMatch({Call, 100000, 100}, lists:last(Shown)),
    finish(Ref, Call).

a_submitted_call_reports_under_its_callback_id() ->
    Ref = subscribe(77),
    {ok, Loop} = tokamak_loop:open(#{}),
    ok = tokamak_loop:submit(Loop, 77, op(report_progress), [10]),
    receive {tokamak, Loop, ready} -> ok end,
    ?assertMatch({empty, [{77, async_result, true}]}, tokamak_loop:drain(Loop)),
    ?assertEqual([{77, 1, 10}, {77, 10, 100}], received(Ref, 0)),
    ok = tokamak_loop:destroy(Loop),
    finish(Ref, 77).

a_storm_shows_eleven_a_second_and_loses_no_last_value() ->
    Ref = tokamak_progress:subscribe(all),
    Keys = lists:seq(1, 100),
    Seconds = 10,
    {0, Before} = tokamak_test_nif:storm(),
    ok = tokamak_test_nif:start_storm(tokamak_nif:table(), 16, length(Keys), Seconds * 1000),
    Ended = fun() -> element(1, tokamak_test_nif:storm()) =:= 0 end,
    tokamak_wait:until(Ended, 4 * Seconds * 1000),
    {0, After} = tokamak_test_nif:storm(),
    ?assert(After - Before > 1_000_000),
    [ok = tokamak_progress:report(Key, 999, 1000) || Key <- Keys],
    Shown = lists:foldl(
        fun({Key, Done, _Percent}, ByKey) ->
            maps:update_with(Key, fun(Values) -> [Done | Values] end, [Done], ByKey)
        end,
        #{},
        received_until(Ref, 999, Keys)
    ),
    ?assertEqual(Keys, lists:sort(maps:keys(Shown))),
    maps:foreach(
        fun(_Key, [Last | _] = Values) ->
            ?assert(length(Values) =< 11 * Seconds + 1),
            ?assertEqual(999, Last)
        end,
        Shown
    ),
    [ok = tokamak_progress:report(Key, 1000, 1000) || Key <- Keys],
    ?assertEqual([{Key, 1000, 100} || Key <- Keys], received(Ref, 0)),
    ?assertMatch(#{keys := 0}, tokamak_progress:stats()),
    ?assertEqual([], received(Ref, 150)),
    ok = tokamak_progress:unsubscribe(Ref).

%% Keys that are not done are not looked at.
an_idle_limiter_takes_no_time() ->
    [ok = tokamak_progress:report({key, N}, 1, 2) || N <- lists:seq(1, 1000)],
    Timers = [Thread || {Thread, _} <- tokamak_test:threads("tokamak-timers")],
    receive
    after 150 -> ok
    end,
    Before = [tokamak_test:switches(Thread) || Thread <- Timers],
    receive
    after 1000 -> ok
    end,
    ?assertEqual(Before, [tokamak_test:switches(Thread) || Thread <- Timers]),
    [ok = tokamak_progress:report({key, N}, 2, 2) || N <- lists:seq(1, 1000)].

wrong_arguments_are_explained() ->
    Of = fun(Done, Total) -> explanation(fun() -> tokamak_progress:report(key, Done, Total) end) end,
    ?assertMatch(#{2 := _}, Of(-1, 1)),
    ?assertMatch(#{3 := _}, Of(1, 1.0)),
    ?assertMatch(#{2 := _}, explanation(fun() -> tokamak_progress:subscribe(key, #{interval => 0}) end)),
    ?assertMatch(#{1 := _}, explanation(fun() -> tokamak_progress:unsubscribe(make_ref()) end)).

the_interval_is_configured() ->
    Ref = subscribe(key),
    ok = tokamak_progress:report(key, 1, 10),
    ok = tokamak_progress:report(key, 2, 10),
    receive
        {tokamak, Ref, {progress, key, #{done := 1}}} -> ok
    end,
    receive
        {tokamak, Ref, {progress, key, #{done := 2}}} -> ok
    after 90 -> error(late)
    end,
    finish(Ref, key).

subscribe(Key) ->
    Ref = tokamak_progress:subscribe(Key),
    ?assert(is_reference(Ref)),
    Ref.

finish(Ref, Key) ->
    ok = tokamak_progress:unsubscribe(Ref),
    ok = tokamak_progress:report(Key, 1, 1).

%% What comes until the latest value of each key is this one.
received_until(_Ref, _Last, []) ->
    [];
received_until(Ref, Last, Keys) ->
    receive
        {tokamak, Ref, {progress, Key, #{done := Last, percent := Percent}}} ->
            [{Key, Last, Percent} | received_until(Ref, Last, lists:delete(Key, Keys))];
        {tokamak, Ref, {progress, Key, #{done := Done, percent := Percent}}} ->
            [{Key, Done, Percent} | received_until(Ref, Last, lists:usort([Key | Keys]))]
    after 30000 -> error({not_shown, Last, Keys})
    end.

received(Ref, Milliseconds) ->
    receive
        {tokamak, Ref, {progress, Key, #{done := Done, percent := Percent}}} ->
            [{Key, Done, Percent} | received(Ref, Milliseconds)]
    after Milliseconds -> []
    end.
