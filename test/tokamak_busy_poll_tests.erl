%% SPDX-License-Identifier: Apache-2.0
%% A consumer whose peer answers at once looks a moment longer before it sleeps; no other does.
-module(tokamak_busy_poll_tests).

-include_lib("eunit/include/eunit.hrl").

-import(call_fixture, [until/1]).

%% Ids of the descriptor and of what is posted.
-define(READ, 1).
-define(POSTED, 2).
%% More than it takes until a look may pay, see native/tokamak_core/src/busy_poll.rs.
-define(ROUNDS, 500).
-define(PATIENCE, 10000).

busy_poll_test_() ->
    call_fixture:tests([
        fun a_poller_whose_peer_answers_at_once_looks_before_it_sleeps/0,
        fun the_owner_of_a_raw_loop_looks_when_a_drain_finds_nothing/0,
        fun a_poller_whose_peer_takes_its_time_does_not_look/0,
        fun looks_in_vain_get_rare/0,
        {timeout, 60, fun nothing_is_lost_between_a_look_and_a_sleep/0},
        fun a_look_ends_with_what_is_posted/0,
        fun a_poll_of_0_does_not_look/0,
        fun a_loop_that_watches_nothing_does_not_look/0,
        fun the_select_backend_does_not_look/0,
        fun a_loop_is_destroyed_while_its_poller_looks/0,
        fun looks_are_counted_for_all_loops/0
    ]).

without_busy_poll_test_() ->
    call_fixture:tests(#{busy_poll => 0}, [fun without_it_nobody_looks/0]).

a_poller_whose_peer_answers_at_once_looks_before_it_sleeps() ->
    Talk = talk(supervised, native, 0),
    talk_until(fun() -> found(Talk) >= 100 end, Talk),
    hang_up(Talk).

the_owner_of_a_raw_loop_looks_when_a_drain_finds_nothing() ->
    Talk = talk(raw, native, 0),
    talk_until(fun() -> found(Talk) >= 100 end, Talk),
    hang_up(Talk).

a_poller_whose_peer_takes_its_time_does_not_look() ->
    %% Far more than what counts as a short sleep.
    Talk = talk(supervised, native, 2000),
    rounds(?ROUNDS, Talk),
    ?assertMatch(#{busy_polls := 0}, info(Talk)),
    hang_up(Talk).

%% A peer that has answered at once so far, and then is not asked any more.
looks_in_vain_get_rare() ->
    Talk = talk(supervised, native, 0),
    talk_until(fun() -> found(Talk) >= 1 end, Talk),
    #{busy_polls_in_vain := Before} = info(Talk),
    Loop = maps:get(loop, Talk),
    %% Polls that end by their time, again and again: only the first one may look in vain.
    [?assertEqual([], tokamak_loop:poll(Loop, 1)) || _ <- lists:seq(1, ?ROUNDS)],
    #{busy_polls_in_vain := After} = info(Talk),
    ?assert(After - Before =< 1),
    hang_up(Talk).

nothing_is_lost_between_a_look_and_a_sleep() ->
    Talk = talk(supervised, native, 0),
    %% Waits of all lengths around that of a look, and a poller that comes late.
    [
        begin
            tokamak_test:keep_busy(rand:uniform(150) - 75),
            round(Talk, N rem 256)
        end
     || N <- lists:seq(1, 20000)
    ],
    ?assertEqual([], tokamak_loop:poll(maps:get(loop, Talk), 10)),
    hang_up(Talk).

a_look_ends_with_what_is_posted() ->
    Talk = #{loop := Loop} = talk(supervised, native, 0),
    talk_until(fun() -> found(Talk) >= 100 end, Talk),
    Poster = start_poster(Loop),
    [
        begin
            round(Talk, N rem 256),
            posted(Poster, Loop)
        end
     || N <- lists:seq(1, ?ROUNDS)
    ],
    stop_poster(Poster),
    hang_up(Talk).

a_poll_of_0_does_not_look() ->
    Talk = #{loop := Loop} = talk(supervised, native, 0),
    talk_until(fun() -> found(Talk) >= 100 end, Talk),
    #{busy_polls := Before} = info(Talk),
    [?assertEqual([], tokamak_loop:poll(Loop, 0)) || _ <- lists:seq(1, ?ROUNDS)],
    ?assertMatch(#{busy_polls := Before}, info(Talk)),
    hang_up(Talk).

a_loop_that_watches_nothing_does_not_look() ->
    {ok, Loop} = tokamak_loop:new(),
    Poster = start_poster(Loop),
    [posted(Poster, Loop) || _ <- lists:seq(1, ?ROUNDS)],
    ?assertMatch(#{busy_polls := 0}, tokamak_loop:info(Loop)),
    stop_poster(Poster),
    ok = tokamak_loop:destroy(Loop).

the_select_backend_does_not_look() ->
    Talk = talk(supervised, select, 0),
    rounds(?ROUNDS, Talk),
    ?assertMatch(#{busy_polls := 0}, info(Talk)),
    hang_up(Talk).

a_loop_is_destroyed_while_its_poller_looks() ->
    [
        begin
            Self = self(),
            {Poller, Monitor} = spawn_monitor(fun() ->
                Talk = talk(supervised, native, 0),
                Self ! {self(), maps:get(loop, Talk)},
                exit(talk_on(Talk, 0))
            end),
            Loop = receive {Poller, Made} -> Made end,
            until(fun() -> maps:get(busy_polls, tokamak_loop:info(Loop)) > 100 end),
            ok = tokamak_loop:destroy(Loop),
            receive
                {'DOWN', Monitor, process, Poller, Reason} -> ?assertEqual({error, closed}, Reason)
            after ?PATIENCE -> error(the_poller_hangs)
            end
        end
     || _ <- lists:seq(1, 20)
    ].

looks_are_counted_for_all_loops() ->
    Talk = talk(supervised, native, 0),
    talk_until(fun() -> found(Talk) >= 1 end, Talk),
    Info = info(Talk),
    hang_up(Talk),
    #{loop_totals := Totals} = tokamak:stats(),
    busy_poll_fixture:are_counted(Info, Totals, <<"tokamak_loop_busy_polls_total">>).

without_it_nobody_looks() ->
    Talk = talk(supervised, native, 0),
    rounds(?ROUNDS, Talk),
    ?assertMatch(#{busy_polls := 0}, info(Talk)),
    hang_up(Talk).

%% A process that posts when it is asked to.

start_poster(Loop) ->
    spawn_link(fun() -> post_on_demand(Loop) end).

post_on_demand(Loop) ->
    receive
        post ->
            ok = tokamak_loop:post(Loop, ?POSTED, user, posted),
            post_on_demand(Loop);
        stop ->
            ok
    end.

stop_poster(Poster) ->
    Poster ! stop,
    ok.

posted(Poster, Loop) ->
    Poster ! post,
    ?assertEqual([{?POSTED, user, posted}], tokamak_loop:poll(Loop, ?PATIENCE)).

%% A talk with a thread that answers what it is written, `Delay' microseconds later.

talk(Kind, Backend, Delay) ->
    {ok, Loop} =
        case Kind of
            raw -> tokamak_loop:open(#{backend => Backend});
            supervised -> tokamak_loop:new(#{backend => Backend})
        end,
    {Question, Ask} = tokamak_test_nif:pipe(),
    {Answer, Reply} = tokamak_test_nif:pipe(),
    {ok, Write} = tokamak_fd:from_integer(Ask),
    {ok, Read} = tokamak_fd:from_integer(Answer),
    [ok = tokamak_test_nif:close(Number) || Number <- [Ask, Answer]],
    ok = tokamak_test_nif:start_echo(Question, Reply, Delay),
    ok = tokamak_loop:add_reader(Loop, Read, ?READ),
    #{loop => Loop, kind => Kind, read => Read, write => Write}.

hang_up(#{loop := Loop, read := Read, write := Write}) ->
    ok = tokamak_fd:close(Write),
    ok = tokamak_fd:close(Read),
    ok = tokamak_loop:destroy(Loop).

info(#{loop := Loop}) ->
    tokamak_loop:info(Loop).

found(Talk) ->
    busy_poll_fixture:found(info(Talk)).

talk_until(Condition, Talk) ->
    busy_poll_fixture:until_talk(fun(Count) -> rounds(Count, Talk) end, Condition).

rounds(Count, Talk) ->
    [round(Talk, N rem 256) || N <- lists:seq(1, Count)],
    ok.

round(#{read := Read, write := Write} = Talk, Byte) ->
    {ok, 1} = tokamak_fd:write(Write, <<Byte>>),
    [{?READ, read, undefined}] = wait(Talk),
    {ok, ?READ, <<Byte>>} = tokamak_fd:read_and_reselect(Read, 64).

talk_on(#{read := Read, write := Write} = Talk, Byte) ->
    {ok, 1} = tokamak_fd:write(Write, <<Byte>>),
    case wait(Talk) of
        [{?READ, read, undefined}] ->
            _ = tokamak_fd:read_and_reselect(Read, 64),
            talk_on(Talk, (Byte + 1) rem 256);
        Ended ->
            Ended
    end.

wait(#{kind := supervised, loop := Loop}) ->
    tokamak_loop:poll(Loop, ?PATIENCE);
wait(#{kind := raw, loop := Loop} = Talk) ->
    case tokamak_loop:drain(Loop) of
        {empty, []} ->
            receive
                {tokamak, Loop, ready} -> wait(Talk)
            after ?PATIENCE -> error(no_ready)
            end;
        {empty, Events} ->
            Events
    end.
