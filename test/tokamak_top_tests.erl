%% SPDX-License-Identifier: Apache-2.0
%% The live view: what it shows, and that it ends.
-module(tokamak_top_tests).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1]).

top_test_() ->
    call_fixture:tests([
        fun it_shows_as_many_screens_as_asked_for_and_ends/0,
        fun it_shows_what_goes_on/0,
        fun a_terminal_is_cleared_for_each_screen/0,
        fun enter_ends_it/0,
        fun the_end_of_the_input_ends_it/0,
        fun messages_of_the_caller_stay_its_own/0,
        fun wrong_options_are_explained/0
    ]).

it_shows_as_many_screens_as_asked_for_and_ends() ->
    {ok, Shown} = shown(#{interval => 10, count => 3}, lines([])),
    ?assertEqual(3, length(screens(Shown))),
    ?assertEqual(nomatch, string:find(Shown, "\e")).

it_shows_what_goes_on() ->
    {ok, Loop} = tokamak_loop:new(),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, 17)],
    Ref = tokamak:async(sleep, [60000]),
    Caller = spawn_link(fun call_for_ever/0),
    {ok, Shown} = shown(#{interval => 300, count => 1}, lines([])),
    unlink(Caller),
    ok = tokamak_test:kill(Caller),
    ?assertMatch({match, _}, re:run(Shown, "tokamak_test_engine +2 ")),
    ?assertMatch({match, _}, re:run(Shown, "blocking +[1-9][0-9.]* +[0-9.]+[num]s")),
    ?assertMatch({match, _}, re:run(Shown, "17 of 65536 queued, 17 at the most")),
    ?assertMatch({match, _}, re:run(Shown, "alarms: none")),
    ok = tokamak:cancel(Ref),
    ok = tokamak_loop:destroy(Loop).

call_for_ever() ->
    {ok, _} = tokamak:call(op(block), [1, 0]),
    call_for_ever().

a_terminal_is_cleared_for_each_screen() ->
    {ok, Shown} = shown(#{interval => 10, count => 2}, terminal([])),
    ?assertEqual(3, length(string:split(Shown, "\e[H\e[2J", all))).

enter_ends_it() ->
    {ok, Shown} = shown(#{interval => 10}, terminal(["\n"])),
    ?assertMatch([_ | _], screens(Shown)).

the_end_of_the_input_ends_it() ->
    {ok, Shown} = shown(#{interval => 10}, lines([])),
    ?assertMatch([_ | _], screens(Shown)).

messages_of_the_caller_stay_its_own() ->
    Leader = spawn_link(fun() -> serve(lines([]), []) end),
    true = group_leader(Leader, self()),
    Messages = [{Sender, pressed} || Sender <- [button, none, Leader]],
    [self() ! Message || Message <- Messages],
    ok = tokamak:top(#{interval => 10, count => 2}),
    ok = tokamak:top(#{interval => 10}),
    ?assertEqual(Messages, [receive Message -> Message after 0 -> lost end || _ <- Messages]),
    Leader ! {written, self()},
    ?assertMatch(N when N > 2, receive {written, Text} -> length(screens(Text)) after 10000 -> none end).

wrong_options_are_explained() ->
    ?assertError(badarg, tokamak:top(#{interval => 0})),
    ?assertError(badarg, tokamak:top(#{interval => 1000, times => 1})),
    ?assertError(badarg, tokamak:top(5)).

screens(Shown) ->
    tl(string:split(Shown, "tokamak: ", all)).

terminal(Input) -> #{columns => 100, input => Input}.

lines(Input) -> #{columns => none, input => Input}.

%% Runs it with a group leader that stands for a terminal or a file: what it returned and what it wrote.
shown(Options, Device) ->
    Self = self(),
    Leader = spawn_link(fun() -> serve(Device, []) end),
    {Pid, Monitor} = spawn_monitor(fun() ->
        true = group_leader(Leader, self()),
        Self ! {returned, tokamak:top(Options)}
    end),
    receive
        {'DOWN', Monitor, process, Pid, normal} -> ok
    after 10000 -> error(does_not_end)
    end,
    Leader ! {written, Self},
    receive
        {written, Text} -> {receive {returned, Result} -> Result end, Text}
    end.

%% The I/O protocol, as far as it is needed.
serve(Device, Written) ->
    receive
        {io_request, From, As, Request} ->
            {Reply, Next, More} = reply(Request, Device),
            From ! {io_reply, As, Reply},
            serve(Next, [Written, More]);
        {written, To} ->
            To ! {written, unicode:characters_to_list(Written)}
    end.

reply({put_chars, _Encoding, Chars}, Device) -> {ok, Device, Chars};
reply({get_geometry, columns}, #{columns := none} = Device) -> {{error, enotsup}, Device, []};
reply({get_geometry, columns}, #{columns := Columns} = Device) -> {Columns, Device, []};
reply({get_line, _Encoding, _Prompt}, #{input := [Line | Rest]} = Device) -> {Line, Device#{input := Rest}, []};
reply({get_line, _Encoding, _Prompt}, #{input := []} = Device) -> {eof, Device, []}.
