%% SPDX-License-Identifier: Apache-2.0
%% Who receives from a child that answers at once looks a moment longer before it sleeps; nobody else does.
-module(tokamak_subprocess_busy_poll_tests).

-include_lib("eunit/include/eunit.hrl").

-import(call_fixture, [until/1]).

-define(s, tokamak_subprocess).
%% More than it takes until a look may pay, see native/tokamak_core/src/busy_poll.rs.
-define(ROUNDS, 500).
-define(PATIENCE, 10000).
%% Sleeps of up to four times as long count as short: also on a machine that does other things.
-define(LONG_LOOKS, #{busy_poll => 500}).

busy_poll_test_() ->
    call_fixture:tests(?LONG_LOOKS, [
        fun who_receives_from_a_child_that_answers_at_once_looks_before_it_sleeps/0,
        fun who_receives_from_a_child_that_takes_its_time_does_not_look/0,
        fun looks_in_vain_get_rare/0,
        fun a_recv_of_0_does_not_look/0,
        {timeout, 60, fun nothing_is_lost_between_a_look_and_a_sleep/0},
        fun both_outputs_come_in_order_where_the_owner_looks/0,
        fun the_exit_comes_once_where_the_owner_looks/0,
        fun output_after_the_exit_is_still_waited_for/0,
        fun others_write_while_the_owner_looks/0,
        fun messages_do_not_make_anybody_look/0,
        fun an_owner_is_killed_while_it_looks/0,
        fun the_spawner_dies_while_the_owner_looks/0,
        fun looks_are_counted_for_all_subprocesses/0
    ]).

without_busy_poll_test_() ->
    call_fixture:tests(#{busy_poll => 0}, [fun without_it_nobody_looks/0]).

who_receives_from_a_child_that_answers_at_once_looks_before_it_sleeps() ->
    P = looking_child(),
    end_of(P).

who_receives_from_a_child_that_takes_its_time_does_not_look() ->
    {ok, P} = ?s:start(["sh", "-c", "while read x; do sleep 0.02; echo $x; done"]),
    rounds(50, P),
    ?assertMatch(#{busy_polls := 0}, ?s:info(P)),
    end_of(P).

%% A child that has answered at once so far, and then is not asked any more.
looks_in_vain_get_rare() ->
    P = looking_child(),
    #{busy_polls_in_vain := Before} = ?s:info(P),
    %% Only the first of these may look in vain.
    [?assertEqual({error, timeout}, ?s:recv(P, 1)) || _ <- lists:seq(1, ?ROUNDS)],
    #{busy_polls_in_vain := After} = ?s:info(P),
    ?assert(After - Before =< 1),
    rounds(10, P),
    end_of(P).

a_recv_of_0_does_not_look() ->
    P = looking_child(),
    #{busy_polls := Before} = ?s:info(P),
    [?assertEqual({error, timeout}, ?s:recv(P, 0)) || _ <- lists:seq(1, ?ROUNDS)],
    ?assertMatch(#{busy_polls := Before}, ?s:info(P)),
    ok = ?s:write(P, "now\n"),
    ?assertEqual(<<"now\n">>, received_without_waiting(P)),
    end_of(P).

nothing_is_lost_between_a_look_and_a_sleep() ->
    P = looking_child(),
    [
        begin
            Line = [integer_to_list(N), $\n],
            ok = ?s:write(P, Line),
            tokamak_test:keep_busy(rand:uniform(150) - 75),
            ?assertEqual({ok, {stdout, iolist_to_binary(Line)}}, ?s:recv(P, ?PATIENCE))
        end
     || N <- lists:seq(1, 10000)
    ],
    ?assertEqual({error, timeout}, ?s:recv(P, 10)),
    end_of(P).

both_outputs_come_in_order_where_the_owner_looks() ->
    {ok, P} = ?s:start(["sh", "-c", "while read x; do echo $x; echo $x >&2; done"]),
    until(fun() ->
        [both(P, integer_to_binary(N)) || N <- lists:seq(1, 100)],
        found(P) >= 20
    end),
    end_of(P).

both(P, Text) ->
    ok = ?s:write(P, [Text, $\n]),
    Line = <<Text/binary, "\n">>,
    Both = [?s:recv(P, ?PATIENCE) || _ <- [stdout, stderr]],
    ?assertEqual([{ok, {stderr, Line}}, {ok, {stdout, Line}}], lists:sort(Both)).

the_exit_comes_once_where_the_owner_looks() ->
    Script = "while read x && [ \"$x\" != end ]; do echo $x; done; exit 7",
    [
        begin
            {ok, P} = ?s:start(["sh", "-c", Script]),
            talk_until(fun() -> found(P) >= 1 end, P),
            ok = ?s:write(P, "end\n"),
            ?assertEqual({exit, 7}, ?s:recv(P, ?PATIENCE)),
            ?assertEqual({error, closed}, ?s:recv(P, ?PATIENCE))
        end
     || _ <- lists:seq(1, 20)
    ].

%% A descendant that holds the pipes writes after the child's exit.
output_after_the_exit_is_still_waited_for() ->
    Script = "while read x && [ \"$x\" != end ]; do echo $x; done; (sleep 0.2; echo late) & exit 0",
    {ok, P} = ?s:start(["sh", "-c", Script]),
    talk_until(fun() -> found(P) >= 20 end, P),
    ok = ?s:write(P, "end\n"),
    ?assertEqual({ok, {stdout, <<"late\n">>}}, ?s:recv(P, ?PATIENCE)),
    ?assertEqual({exit, 0}, ?s:recv(P, ?PATIENCE)).

others_write_while_the_owner_looks() ->
    P = looking_child(),
    #{busy_polls := Before} = ?s:info(P),
    Writers = 4,
    Lines = 2000,
    [
        spawn_link(fun() -> [ok = ?s:write(P, "line\n") || _ <- lists:seq(1, Lines)] end)
     || _ <- lists:seq(1, Writers)
    ],
    ?assertEqual(binary:copy(<<"line\n">>, Writers * Lines), collect(P, <<>>, 5 * Writers * Lines)),
    #{busy_polls := After} = ?s:info(P),
    ?assert(After > Before),
    end_of(P).

collect(_P, Read, Size) when byte_size(Read) =:= Size ->
    Read;
collect(P, Read, Size) ->
    {ok, {stdout, More}} = ?s:recv(P, ?PATIENCE),
    collect(P, <<Read/binary, More/binary>>, Size).

messages_do_not_make_anybody_look() ->
    {ok, P} = ?s:start(["cat"]),
    [
        begin
            ok = ?s:active(P, once),
            ok = ?s:write(P, "line\n"),
            receive {tokamak, P, Message} -> ?assertEqual({stdout, <<"line\n">>}, Message) end
        end
     || _ <- lists:seq(1, ?ROUNDS)
    ],
    ?assertMatch(#{busy_polls := 0}, ?s:info(P)),
    end_of(P).

an_owner_is_killed_while_it_looks() ->
    [
        begin
            Self = self(),
            {Owner, Monitor} = spawn_monitor(fun() ->
                P = looking_child(),
                Self ! {self(), ?s:os_pid(P)},
                talk_until(fun() -> false end, P)
            end),
            OsPid =
                receive
                    {Owner, {ok, Told}} -> Told;
                    {'DOWN', Monitor, process, Owner, Reason} -> error(Reason)
                end,
            exit(Owner, kill),
            receive {'DOWN', Monitor, process, Owner, Killed} -> ?assertEqual(killed, Killed) end,
            until(fun() -> not tokamak_wait:is_running(OsPid) end)
        end
     || _ <- lists:seq(1, 10)
    ].

the_spawner_dies_while_the_owner_looks() ->
    Self = self(),
    Owner = spawn_link(fun() ->
        P = looking_child(),
        Self ! {self(), looks},
        Self ! {self(), talk_to_the_end(P)}
    end),
    receive {Owner, looks} -> ok end,
    tokamak_wait:kill_spawner(),
    receive {Owner, End} -> ?assertEqual({error, spawner_died}, End) end.

%% A write fails before the end is known here.
talk_to_the_end(P) ->
    _ = ?s:write(P, "line\n"),
    case ?s:recv(P, ?PATIENCE) of
        {ok, {stdout, _}} -> talk_to_the_end(P);
        End -> End
    end.

looks_are_counted_for_all_subprocesses() ->
    P = looking_child(),
    Info = ?s:info(P),
    end_of(P),
    #{subprocess_totals := #{busy_polls := All, busy_polls_in_vain := InVain} = Totals} = tokamak:stats(),
    ?assert(All > InVain),
    busy_poll_fixture:are_counted(Info, Totals, <<"tokamak_subprocess_busy_polls_total">>).

without_it_nobody_looks() ->
    {ok, P} = ?s:start(["cat"]),
    rounds(?ROUNDS, P),
    ?assertMatch(#{busy_polls := 0}, ?s:info(P)),
    end_of(P).

%% A child whose owner has looked, and found what it looked for.
looking_child() ->
    {ok, P} = ?s:start(["cat"]),
    talk_until(fun() -> found(P) >= 20 end, P),
    P.

end_of(P) ->
    ok = ?s:close_stdin(P),
    ?assertEqual({exit, 0}, ?s:recv(P, ?PATIENCE)).

found(P) ->
    busy_poll_fixture:found(?s:info(P)).

talk_until(Condition, P) ->
    busy_poll_fixture:until_talk(fun(Count) -> rounds(Count, P) end, Condition).

rounds(Count, P) ->
    [round(P, integer_to_binary(N)) || N <- lists:seq(1, Count)],
    ok.

round(P, Text) ->
    Line = <<Text/binary, "\n">>,
    ok = ?s:write(P, Line),
    ?assertEqual({ok, {stdout, Line}}, ?s:recv(P, ?PATIENCE)).

received_without_waiting(P) ->
    case ?s:recv(P, 0) of
        {error, timeout} -> received_without_waiting(P);
        {ok, {stdout, Line}} -> Line
    end.
