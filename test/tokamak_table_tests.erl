%% SPDX-License-Identifier: Apache-2.0
%% The C table, as a library in C uses it from threads of its own.
-module(tokamak_table_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [until/1, collect/2]).

-define(VERSION, 2).
-define(USER, 40).

table_test_() ->
    call_fixture:tests([
        fun the_table_is_fetched_through_its_term_and_version_only/0,
        fun ids_are_unique_among_all_who_take_them/0,
        fun events_of_every_payload_and_type_arrive/0,
        fun wrong_events_are_refused/0,
        fun a_full_loop_refuses_at_once_or_after_the_wait/0,
        fun a_push_that_waits_goes_on_when_there_is_room/0,
        fun a_push_that_waits_goes_on_though_most_places_stay_taken/0,
        fun results_come_into_their_reserved_places/0,
        fun places_that_are_given_back_are_free/0,
        fun more_places_than_can_be_counted_are_refused/0,
        fun a_thread_polls_what_there_is/0,
        fun a_thread_that_polls_waits_for_events_of_every_kind/0,
        fun a_thread_and_a_process_do_not_poll_at_once/0,
        fun a_thread_takes_the_place_of_a_poller_that_was_killed/0,
        fun a_thread_that_polls_is_told_when_the_loop_ends/0,
        fun a_thread_polls_no_raw_loop_and_none_that_the_vm_tells/0,
        fun a_tie_is_told_once_when_the_loop_ends/0,
        fun a_loop_that_has_ended_tells_at_once/0,
        fun what_is_untied_is_not_told/0,
        fun a_closed_loop_is_closed_for_everything/0,
        fun a_reference_outlives_its_loop_and_the_application/0
    ]).

with_loop(Options, Test) ->
    ok = table_user:fetch(tokamak_nif:table(), ?VERSION),
    {ok, Loop} = tokamak_loop:new(Options),
    Test(Loop, table_user:retain(Loop)),
    _ = tokamak_loop:destroy(Loop),
    ok.

with_loop(Test) ->
    with_loop(#{}, Test).

the_table_is_fetched_through_its_term_and_version_only() ->
    ?assertEqual(ok, table_user:fetch(tokamak_nif:table(), ?VERSION)),
    [?assertEqual(refused, table_user:fetch(tokamak_nif:table(), Version)) || Version <- [0, 1, 3, 16#FFFFFFFF]],
    {ok, Loop} = tokamak_loop:new(),
    [?assertEqual(refused, table_user:fetch(Term, ?VERSION)) || Term <- [make_ref(), Loop, self(), 1]],
    [?assertEqual(not_a_loop, table_user:retain(Term)) || Term <- [make_ref(), tokamak_nif:table(), x]],
    ok = tokamak_loop:destroy(Loop).

ids_are_unique_among_all_who_take_them() ->
    ok = table_user:fetch(tokamak_nif:table(), ?VERSION),
    Blocks = [{table_user:ids(Count), Count} || Count <- [1, 2, 10, 1000]] ++ [{tokamak_id:next(5), 5}],
    Ids = [Id || {First, Count} <- Blocks, Id <- lists:seq(First, First + Count - 1)],
    ?assertEqual(length(Ids), length(lists:usort(Ids))),
    ?assertEqual(0, table_user:ids(0)),
    ?assertEqual(0, table_user:ids(1 bsl 63)).

a_thread_polls_what_there_is() ->
    with_loop(fun(Loop, Reference) ->
        ?assertEqual(timed_out, table_user:poll(Reference, 0)),
        Posted = [{Id, ?USER, {Id, <<"data">>}} || Id <- lists:seq(1, 3000)],
        [ok = tokamak_loop:post(Loop, Id, user, Data) || {Id, _, Data} <- Posted],
        ?assertEqual(Posted, polled(Reference, 3000)),
        ?assertEqual(timed_out, table_user:poll(Reference, 0)),
        ?assertEqual([], tokamak_loop:poll(Loop, 0))
    end).

polled(_Reference, 0) ->
    [];
polled(Reference, Left) ->
    Events = table_user:poll(Reference, 5000),
    Events ++ polled(Reference, Left - length(Events)).

a_thread_that_polls_waits_for_events_of_every_kind() ->
    with_loop(fun(Loop, Reference) ->
        {ok, Read, Write} = tokamak_fd:pipe(),
        ok = tokamak_loop:add_reader(Loop, Read, 7),
        Come = [
            {{1, ?USER, x}, fun() -> tokamak_loop:post(Loop, 1, user, x) end},
            {{7, 1, undefined}, fun() -> tokamak_fd:write(Write, <<"x">>) end},
            {{3, 12, 5}, fun() -> tokamak_loop:submit(Loop, 3, echo, [5]) end}
        ],
        [
            begin
                Poll = async_poll(Reference, 5000),
                until(fun() -> busy(Loop) end),
                _ = Start(),
                ?assertEqual([Event], poll_result(Poll)),
                _ = tokamak_fd:read(Read, 10)
            end
         || {Event, Start} <- Come
        ],
        Timer = tokamak_loop:start_timer(Loop, 20, 4),
        ?assertEqual([{4, 3, Timer}], table_user:poll(Reference, 5000)),
        %% Not closed before, as it would be with its last reference: that is an event, too.
        ok = tokamak_fd:close(Write)
    end).

busy(Loop) -> tokamak_loop:poll(Loop, 0) =:= {error, busy}.

async_poll(Reference, Timeout) ->
    spawn_monitor(fun() -> exit({polled, table_user:poll(Reference, Timeout)}) end).

poll_result({Pid, Monitor}) ->
    receive {'DOWN', Monitor, process, Pid, {polled, Result}} -> Result after 5000 -> error(timeout) end.

a_thread_and_a_process_do_not_poll_at_once() ->
    with_loop(fun(Loop, Reference) ->
        Poll = async_poll(Reference, 5000),
        until(fun() -> busy(Loop) end),
        ?assertEqual(busy, table_user:poll(Reference, 0)),
        ok = tokamak_loop:post(Loop, 1, user, x),
        ?assertEqual([{1, ?USER, x}], poll_result(Poll)),
        Test = self(),
        Process = spawn_link(fun() -> Test ! {self(), tokamak_loop:poll(Loop, 5000)} end),
        until(fun() -> busy(Loop) end),
        ?assertEqual(busy, table_user:poll(Reference, 0)),
        ok = tokamak_loop:post(Loop, 2, user, y),
        receive {Process, Events} -> ?assertEqual([{2, user, y}], Events) after 5000 -> error(timeout) end
    end).

a_thread_takes_the_place_of_a_poller_that_was_killed() ->
    with_loop(fun(Loop, Reference) ->
        Process = spawn(fun() -> tokamak_loop:poll(Loop, infinity) end),
        until(fun() -> busy(Loop) end),
        ok = tokamak_test:kill(Process),
        ?assertEqual(timed_out, table_user:poll(Reference, 1)),
        Poll = async_poll(Reference, 5000),
        until(fun() -> busy(Loop) end),
        ok = tokamak_loop:post(Loop, 1, user, x),
        ?assertEqual([{1, ?USER, x}], poll_result(Poll))
    end).

a_thread_that_polls_is_told_when_the_loop_ends() ->
    with_loop(fun(Loop, Reference) ->
        Poll = async_poll(Reference, 5000),
        until(fun() -> busy(Loop) end),
        ok = tokamak_loop:destroy(Loop),
        ?assertEqual(closed, poll_result(Poll)),
        ?assertEqual(closed, table_user:poll(Reference, 0))
    end).

a_thread_polls_no_raw_loop_and_none_that_the_vm_tells() ->
    {ok, Raw} = tokamak_loop:open(#{}),
    ?assertEqual(not_supported, table_user:poll(table_user:retain(Raw), 0)),
    ok = tokamak_loop:destroy(Raw),
    with_loop(#{backend => select}, fun(_Loop, Reference) ->
        ?assertEqual(not_supported, table_user:poll(Reference, 0))
    end).

events_of_every_payload_and_type_arrive() ->
    with_loop(fun(Loop, Reference) ->
        Large = binary:copy(<<"bytes">>, 100000),
        Payloads = [undefined, 0, -(1 bsl 63), (1 bsl 63) - 1, <<>>, <<"bytes">>, Large],
        Sent = [
            begin
                ?assertEqual(ok, table_user:push(Reference, Id, ?USER, Data, 0)),
                {Id, user, Data}
            end
         || {Id, Data} <- lists:zip(lists:seq(1, length(Payloads)), Payloads)
        ],
        ?assertEqual(Sent, collect(Loop, length(Sent))),
        Codes = [1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40],
        [ok = table_user:push(Reference, Code, Code, undefined, 0) || Code <- Codes],
        Types = [Type || {_, Type, undefined} <- collect(Loop, length(Codes))],
        ?assertEqual(tokamak_loop:event_types(), Types)
    end).

wrong_events_are_refused() ->
    with_loop(fun(Loop, Reference) ->
        Wrong = [{0, ?USER, 1}, {1 bsl 63, ?USER, 1}, {1, 0, 1}, {1, 99, 1}, {1, 1 bsl 31, 1}, {1, ?USER, bad}],
        [?assertEqual(bad_argument, table_user:push(Reference, Id, Type, Data, 0)) || {Id, Type, Data} <- Wrong],
        ?assertEqual([], tokamak_loop:poll(Loop, 0))
    end).

a_full_loop_refuses_at_once_or_after_the_wait() ->
    with_loop(#{max_queue => 2}, fun(Loop, Reference) ->
        [ok = table_user:push(Reference, 1, ?USER, N, 0) || N <- [1, 2]],
        ?assertEqual(overloaded, table_user:push(Reference, 1, ?USER, 3, 0)),
        {Elapsed, Status} = call_fixture:elapsed(fun() -> table_user:push(Reference, 1, ?USER, 3, 30) end),
        ?assertEqual(overloaded, Status),
        ?assert(Elapsed >= 29),
        ?assertEqual([{1, user, 1}, {1, user, 2}], collect(Loop, 2))
    end).

a_push_that_waits_goes_on_when_there_is_room() ->
    with_loop(#{max_queue => 1}, fun(Loop, Reference) ->
        ok = table_user:push(Reference, 1, ?USER, 1, 0),
        Waits = call_fixture:started(fun() -> table_user:push(Reference, 1, ?USER, 2, 10000) end),
        ?assertEqual([{1, user, 1}], tokamak_loop:poll(Loop, 5000)),
        ?assertEqual([{1, user, 2}], tokamak_loop:poll(Loop, 5000)),
        ?assertEqual(ok, call_fixture:result(Waits))
    end).

%% Submitted calls keep their places until they end.
a_push_that_waits_goes_on_though_most_places_stay_taken() ->
    with_loop(#{max_queue => 10}, fun(Loop, Reference) ->
        ok = table_user:reserve(Reference, 8),
        [ok = table_user:push(Reference, 1, ?USER, N, 0) || N <- [1, 2]],
        Waits = call_fixture:started(fun() -> table_user:push(Reference, 1, ?USER, 3, 60000) end),
        until(fun() -> process_info(Waits, current_function) =:= {current_function, {table_user, push, 5}} end),
        ?assertEqual([{1, user, 1}, {1, user, 2}], collect(Loop, 2)),
        ?assertEqual([{1, user, 3}], tokamak_loop:poll(Loop, 5000)),
        ?assertEqual(ok, call_fixture:result(Waits)),
        ok = table_user:unreserve(Reference, 8)
    end).

results_come_into_their_reserved_places() ->
    with_loop(#{max_queue => 2}, fun(Loop, Reference) ->
        ?assertEqual(overloaded, table_user:reserve(Reference, 3)),
        ?assertEqual(ok, table_user:reserve(Reference, 2)),
        ?assertEqual(overloaded, table_user:push(Reference, 1, ?USER, 3, 0)),
        Terms = {[a, "list"], #{make_ref() => 1.5}},
        ok = table_user:push_result(Reference, 1, false, Terms),
        ok = table_user:push_result(Reference, 2, true, reason),
        ?assertEqual([{1, async_result, Terms}, {2, async_error, reason}], collect(Loop, 2)),
        ?assertEqual(ok, table_user:push(Reference, 1, ?USER, 3, 0)),
        ?assertEqual([{1, user, 3}], collect(Loop, 1))
    end).

places_that_are_given_back_are_free() ->
    with_loop(#{max_queue => 2}, fun(_Loop, Reference) ->
        [
            begin
                ?assertEqual(ok, table_user:reserve(Reference, 2)),
                ok = table_user:unreserve(Reference, 2)
            end
         || _ <- lists:seq(1, 10)
        ]
    end).

more_places_than_can_be_counted_are_refused() ->
    with_loop(#{max_queue => 10}, fun(Loop, Reference) ->
        [ok = tokamak_loop:post(Loop, 1, user, N) || N <- [1, 2, 3]],
        ?assertEqual(overloaded, table_user:reserve(Reference, 16#FFFFFFFFFFFFFFFF)),
        ?assertMatch(#{queued := 3, pushed := 3}, tokamak_loop:info(Loop))
    end).

a_tie_is_told_once_when_the_loop_ends() ->
    with_loop(fun(Loop, Reference) ->
        Before = table_user:ends(),
        Ties = [table_user:tie(Reference) || _ <- lists:seq(1, 10)],
        ok = tokamak_loop:destroy(Loop),
        until(fun() -> table_user:ends() =:= Before + 10 end),
        [?assertEqual(called, table_user:untie(Reference, Tie)) || Tie <- Ties],
        ?assertEqual(Before + 10, table_user:ends())
    end).

a_loop_that_has_ended_tells_at_once() ->
    with_loop(fun(Loop, Reference) ->
        Before = table_user:ends(),
        ok = tokamak_loop:destroy(Loop),
        Tie = table_user:tie(Reference),
        ?assertEqual(Before + 1, table_user:ends()),
        ?assertEqual(called, table_user:untie(Reference, Tie))
    end).

what_is_untied_is_not_told() ->
    with_loop(fun(Loop, Reference) ->
        Before = table_user:ends(),
        Tie = table_user:tie(Reference),
        ?assertEqual(untied, table_user:untie(Reference, Tie)),
        ?assertEqual(called, table_user:untie(Reference, Tie)),
        ok = tokamak_loop:destroy(Loop),
        ?assertEqual(Before, table_user:ends())
    end).

a_closed_loop_is_closed_for_everything() ->
    with_loop(fun(Loop, Reference) ->
        ok = tokamak_loop:destroy(Loop),
        ?assertEqual(closed, table_user:push(Reference, 1, ?USER, 1, 0)),
        ?assertEqual(closed, table_user:push(Reference, 1, ?USER, 1, 10000)),
        ?assertEqual(closed, table_user:reserve(Reference, 1)),
        ok = table_user:push_result(Reference, 1, false, dropped)
    end).

a_reference_outlives_its_loop_and_the_application() ->
    with_loop(fun(_Loop, Reference) ->
        ok = application:stop(tokamak),
        ?assertEqual(closed, table_user:push(Reference, 1, ?USER, 1, 0)),
        ok = application:start(tokamak),
        ?assertEqual(closed, table_user:push(Reference, 1, ?USER, 1, 0))
    end).
