%% SPDX-License-Identifier: Apache-2.0
%% What tokamak_subprocess does for one child at a time.
-module(tokamak_subprocess_tests).

-include_lib("eunit/include/eunit.hrl").

-define(s, tokamak_subprocess).

subprocess_test_() ->
    {setup, fun() -> {ok, _} = application:ensure_all_started(tokamak) end,
        fun(_) -> application:stop(tokamak) end, [
            {"run gives the status and both outputs", fun run_gives_everything/0},
            {"run gives a program its input and takes as much output at once", fun run_feeds/0},
            {"run stops what takes too long", fun run_times_out/0},
            {"run stops what writes without an end in its time", {timeout, 60, fun run_of_endless_output/0}},
            {"run times out while its start is under way", fun run_while_the_spawner_stands_still/0},
            {"a status is exact, a signal is told from a code", fun statuses/0},
            {"there is no shell: arguments arrive byte by byte", fun arguments/0},
            {"what cannot be started is an error by its name", fun start_errors/0},
            {"a conversation goes line by line and ends with the input", fun conversation/0},
            {"the exit comes once, after all output", fun exit_comes_last/0},
            {"recv times out and loses nothing", fun recv_times_out/0},
            {"messages come on credit, the exit last", fun messages_on_credit/0},
            {"once is one message, and false is none", fun once_and_false/0},
            {"the exit waits for credit, too", fun exit_needs_credit/0},
            {"streams can be merged, dropped and written to files", fun streams/0},
            {"a directory and an environment are the child's own", fun directory_and_environment/0},
            {"os:putenv and file:set_cwd hold for children that start later", fun later_changes/0},
            {"an environment is of any length that the system takes, and the spawner's successor gets it too",
                {timeout, 60, fun long_environments/0}},
            {"children that start while the environment changes get one that was there", {timeout, 60, fun changing_environment/0}},
            {"signals reach the child", fun signals/0},
            {"info and os_pid tell while there is something to tell", fun info/0},
            {"after the end everything says closed", fun closed_after_the_end/0},
            {"any process writes, the owner alone receives", fun ownership/0},
            {"wrong arguments raise badarg and say why", fun misuse/0}
        ]}.

run_gives_everything() ->
    ?assertEqual(
        {ok, #{status => 3, stdout => <<"out\n">>, stderr => <<"err\n">>}},
        ?s:run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    ).

run_feeds() ->
    Data = crypto:strong_rand_bytes(5000000),
    {ok, #{status := 0, stdout := Out}} = ?s:run(["cat"], #{stdin => [Data, "tail"]}),
    ?assert(Out =:= <<Data/binary, "tail">>).

run_of_endless_output() ->
    tokamak_test:in_time(fun() ->
        Start = tokamak_test:clock(),
        ?assertEqual({error, timeout}, ?s:run(["cat", "/dev/zero"], #{timeout => 100})),
        ok = tokamak_test:in_time((tokamak_test:clock() - Start) div 1_000_000, 300)
    end).

run_while_the_spawner_stands_still() ->
    {ok, #{status := 0}} = ?s:run(["true"]),
    {ok, Spawner, _} = tokamak_nif:subprocess_spawner(),
    [] = os:cmd("kill -STOP " ++ integer_to_list(Spawner)),
    try
        ?assertEqual({error, timeout}, ?s:run(["true"], #{timeout => 100}))
    after
        [] = os:cmd("kill -CONT " ++ integer_to_list(Spawner))
    end,
    ?assertMatch({ok, #{status := 0}}, ?s:run(["true"])),
    ?assertEqual({messages, []}, process_info(self(), messages)).

run_times_out() ->
    ?assertEqual({error, timeout}, ?s:run(["sleep", "60"], #{timeout => 50})),
    tokamak_wait:until(fun no_children/0).

statuses() ->
    [
        ?assertMatch({ok, #{status := Code}}, ?s:run(["sh", "-c", "exit " ++ integer_to_list(Code)]))
     || Code <- [0, 1, 127, 128, 137, 255]
    ],
    ?assertMatch({ok, #{status := {signal, 9}}}, ?s:run(["sh", "-c", "kill -9 $$"])).

arguments() ->
    Odd = [<<"*">>, <<"$HOME">>, <<255, 254>>, <<"a b">>, <<>>, <<"ä"/utf8>>],
    {ok, #{stdout := Out}} = ?s:run(["printf", "%s\\n" | Odd]),
    ?assertEqual(iolist_to_binary([[A, "\n"] || A <- Odd]), Out).

start_errors() ->
    tokamak_test:with_directory(fun(Dir) ->
        File = filename:join(Dir, "file"),
        ok = file:write_file(File, "no program"),
        ?assertEqual({error, enoent}, ?s:start(["no such program"])),
        ?assertEqual({error, eacces}, ?s:start([File])),
        ok = file:change_mode(File, 8#755),
        ?assertEqual({error, enoexec}, ?s:start([File])),
        ?assertEqual({error, enoent}, ?s:start(["true"], #{cd => "/no/such/directory"})),
        ?assertEqual({error, enotdir}, ?s:start(["true"], #{cd => File})),
        ?assertEqual({error, e2big}, ?s:start(["true", binary:copy(<<"x">>, 9000000)])),
        ?assertEqual({error, e2big}, ?s:start(["true", binary:copy(<<"x">>, 1000000)]))
    end).

conversation() ->
    {ok, P} = ?s:start(["cat"]),
    [
        begin
            Line = [integer_to_list(N), "\n"],
            ok = ?s:write(P, Line),
            ?assertEqual({ok, {stdout, iolist_to_binary(Line)}}, ?s:recv(P))
        end
     || N <- lists:seq(1, 100)
    ],
    ok = ?s:close_stdin(P),
    ?assertEqual({error, closed}, ?s:write(P, "late")),
    ?assertEqual({error, closed}, ?s:close_stdin(P)),
    ?assertEqual({exit, 0}, ?s:recv(P)).

exit_comes_last() ->
    {ok, P} = ?s:start(["sh", "-c", "head -c 1000000 /dev/zero; head -c 500000 /dev/zero >&2; exit 7"]),
    ?assertEqual({7, 1000000, 500000}, collect(P, 0, 0)),
    ?assertEqual({error, closed}, ?s:recv(P)).

recv_times_out() ->
    {ok, P} = ?s:start(["cat"]),
    ?assertEqual({error, timeout}, ?s:recv(P, 0)),
    ?assertEqual({error, timeout}, ?s:recv(P, 20)),
    ok = ?s:write(P, "x"),
    ?assertEqual({ok, {stdout, <<"x">>}}, ?s:recv(P)),
    ok = ?s:stop(P),
    ?assertEqual({exit, {signal, 15}}, ?s:recv(P)),
    nothing_is_left().

messages_on_credit() ->
    {ok, P} = ?s:start(["cat"]),
    ok = ?s:active(P, 2),
    ok = ?s:active(P, 1),
    ?assertMatch(#{credit := 3}, ?s:info(P)),
    ?assertEqual({error, active}, ?s:recv(P)),
    [
        begin
            ok = ?s:write(P, [N]),
            receive {tokamak, P, Payload} -> ?assertEqual({stdout, <<N>>}, Payload) end
        end
     || N <- [1, 2, 3]
    ],
    ok = ?s:write(P, "four"),
    nothing_is_left(),
    ?assertEqual({ok, {stdout, <<"four">>}}, ?s:recv(P)),
    ok = ?s:active(P, 10),
    ok = ?s:close_stdin(P),
    receive {tokamak, P, Last} -> ?assertEqual({exit, 0}, Last) end,
    ?assertEqual({error, closed}, ?s:active(P, 1)),
    nothing_is_left().

once_and_false() ->
    {ok, P} = ?s:start(["sh", "-c", "echo 1 >&2; read x; echo 2 >&2; read x; echo 3 >&2"]),
    ok = ?s:active(P, once),
    receive {tokamak, P, One} -> ?assertEqual({stderr, <<"1\n">>}, One) end,
    ok = ?s:write(P, "\n"),
    ok = ?s:active(P, 5),
    receive {tokamak, P, Two} -> ?assertEqual({stderr, <<"2\n">>}, Two) end,
    ok = ?s:active(P, false),
    ok = ?s:write(P, "\n"),
    ?assertEqual({ok, {stderr, <<"3\n">>}}, ?s:recv(P)),
    ?assertEqual({exit, 0}, ?s:recv(P)),
    nothing_is_left().

exit_needs_credit() ->
    {ok, P} = ?s:start(["true"]),
    tokamak_wait:until(fun() -> maps:get(state, ?s:info(P)) =:= exited end),
    nothing_is_left(),
    ok = ?s:active(P, once),
    receive {tokamak, P, Last} -> ?assertEqual({exit, 0}, Last) end.

streams() ->
    Script = ["sh", "-c", "echo out; echo err >&2"],
    ?assertMatch({ok, #{stdout := <<"out\nerr\n">>, stderr := <<>>}}, ?s:run(Script, #{stderr => merge})),
    ?assertMatch({ok, #{stdout := <<>>, stderr := <<"out\nerr\n">>}}, ?s:run(Script, #{stdout => merge})),
    ?assertMatch({ok, #{stdout := <<>>, stderr := <<"err\n">>}}, ?s:run(Script, #{stdout => null})),
    tokamak_test:with_directory(fun(Dir) ->
        Options = #{cd => Dir, stdout => {file, "out"}, stderr => {file, filename:join(Dir, "err")}},
        ?assertMatch({ok, #{stdout := <<>>, stderr := <<>>}}, ?s:run(Script, Options)),
        ?assertEqual({ok, <<"out\n">>}, file:read_file(filename:join(Dir, "out"))),
        ?assertEqual({ok, <<"err\n">>}, file:read_file(filename:join(Dir, "err")))
    end),
    {ok, P} = ?s:start(["cat"], #{stdin => null}),
    ?assertEqual({error, closed}, ?s:write(P, "x")),
    ?assertEqual({exit, 0}, ?s:recv(P)).

directory_and_environment() ->
    ?assertMatch({ok, #{stdout := <<"/\n">>}}, ?s:run(["pwd"], #{cd => "/", env => [{"PWD", false}]})),
    ?assertMatch(
        {ok, #{stdout := <<"A=1\n">>}},
        ?s:run(["/usr/bin/env"], #{clear_env => true, env => [{"A", "1"}, {<<"B">>, "2"}, {"B", false}]})
    ),
    AsMap = #{<<"A">> => <<"1">>, "B" => "2", "PWD" => false},
    ?assertMatch({ok, #{stdout := <<"A=1\nB=2\n">>}}, ?s:run(["/usr/bin/env"], #{clear_env => true, env => AsMap})),
    {ok, #{stdout := Out}} = ?s:run(["env"], #{env => [{"TOKAMAK_TEST", <<"x y">>}]}),
    ?assertNotEqual(nomatch, binary:match(Out, <<"TOKAMAK_TEST=x y\n">>)),
    ?assertNotEqual(nomatch, binary:match(Out, <<"PATH=">>)).

later_changes() ->
    Show = fun(Name) ->
        {ok, #{stdout := Out}} = ?s:run(["sh", "-c", "echo \"${" ++ Name ++ "-unset}\""]),
        Out
    end,
    true = os:putenv("TOKAMAK_LATE", "here"),
    ?assertEqual(<<"here\n">>, Show("TOKAMAK_LATE")),
    true = os:unsetenv("TOKAMAK_LATE"),
    ?assertEqual(<<"unset\n">>, Show("TOKAMAK_LATE")),
    {ok, Cwd} = file:get_cwd(),
    ok = file:set_cwd("/usr"),
    try
        ?assertMatch({ok, #{stdout := <<"/usr\n">>}}, ?s:run(["/bin/pwd"])),
        ?assertMatch({ok, #{stdout := <<"/usr/bin\n">>}}, ?s:run(["pwd"], #{cd => "bin"}))
    after
        ok = file:set_cwd(Cwd)
    end.

long_environments() ->
    Names = ["TOKAMAK_LONG_" ++ integer_to_list(N) || N <- lists:seq(1, 90)],
    Long = lists:duplicate(100000, $x),
    Set = fun(Some) -> [true = os:putenv(Name, Long) || Name <- Some] end,
    Unset = fun() -> [true = os:unsetenv(Name) || Name <- Names] end,
    Length = fun() ->
        ?s:run(["/bin/sh", "-c", "/usr/bin/env | /usr/bin/tr -cd x | /usr/bin/wc -c"])
    end,
    {ok, #{stdout := Before}} = Length(),
    Usual = binary_to_integer(string:trim(Before)),
    try
        %% Longer than a packet.
        Set([hd(Names)]),
        {ok, #{stdout := One}} = Length(),
        ?assertEqual(Usual + 100000, binary_to_integer(string:trim(One))),
        kill_spawner(),
        ?assertMatch({ok, #{stdout := One}}, Length()),
        %% Longer than the system takes, then longer than a request may be.
        Set(lists:sublist(Names, 70)),
        ?assertEqual({error, e2big}, Length()),
        Set(Names),
        ?assertEqual({error, e2big}, Length()),
        %% The next spawner would get what has waited for it. (No program starts now, `kill' neither.)
        Unset(),
        kill_spawner(),
        Set(Names),
        ?assertEqual({error, e2big}, Length())
    after
        Unset()
    end,
    ?assertMatch({ok, #{stdout := Before}}, Length()).

kill_spawner() ->
    tokamak_wait:kill_spawner(),
    tokamak_wait:until(fun() -> tokamak_nif:subprocess_spawner() =:= {error, closed} end).

changing_environment() ->
    Self = self(),
    true = os:putenv("TOKAMAK_CHANGING", "0"),
    Starters = [
        spawn_link(fun() ->
            Self ! {self(), [changing(Self) || _ <- lists:seq(1, 25)]}
        end)
     || _ <- lists:seq(1, 8)
    ],
    try
        All = change_until_done(1, Starters, []),
        %% What a process sees never goes back.
        [?assertEqual(lists:sort(Seen), Seen) || Seen <- All],
        ?assert(length(lists:usort(lists:append(All))) > 25)
    after
        true = os:unsetenv("TOKAMAK_CHANGING")
    end.

changing(Changer) ->
    {ok, #{status := 0, stdout := Out}} = ?s:run(["/bin/sh", "-c", "echo $TOKAMAK_CHANGING"]),
    Changer ! change,
    binary_to_integer(string:trim(Out)).

%% One change for each child that ended.
change_until_done(_, [], All) ->
    All;
change_until_done(N, Starters, All) ->
    receive
        change ->
            true = os:putenv("TOKAMAK_CHANGING", integer_to_list(N)),
            change_until_done(N + 1, Starters, All);
        {Starter, Seen} when is_pid(Starter) ->
            change_until_done(N, lists:delete(Starter, Starters), [Seen | All])
    end.

signals() ->
    {ok, P} = ?s:start(["sh", "-c", "trap 'echo usr1' USR1; trap 'exit 9' INT; echo set; while :; do read x; done"]),
    ?assertEqual({ok, {stdout, <<"set\n">>}}, ?s:recv(P)),
    ok = ?s:signal(P, sigusr1),
    ok = ?s:write(P, "\n"),
    ?assertEqual({ok, {stdout, <<"usr1\n">>}}, ?s:recv(P)),
    ok = ?s:signal(P, 2),
    %% Some shells end before they read this.
    _ = ?s:write(P, "\n"),
    ?assertEqual({exit, 9}, ?s:recv(P)),
    ?assertEqual({error, closed}, ?s:signal(P, sigterm)).

info() ->
    {ok, P} = ?s:start(["cat"]),
    {ok, OsPid} = ?s:os_pid(P),
    ?assert(tokamak_wait:is_running(OsPid)),
    ok = ?s:write(P, "12345"),
    {ok, _} = ?s:recv(P),
    Self = self(),
    ?assertEqual(
        #{
            state => running, owner => Self, credit => 0, written => 5, stdout => 5, stderr => 0,
            busy_polls => 0, busy_polls_in_vain => 0
        },
        ?s:info(P)
    ),
    ok = ?s:close_stdin(P),
    tokamak_wait:until(fun() -> ?s:os_pid(P) =:= {error, closed} end),
    ?assertMatch(#{state := exited}, ?s:info(P)),
    {exit, 0} = ?s:recv(P),
    ?assertEqual({error, closed}, ?s:info(P)).

closed_after_the_end() ->
    {ok, P} = ?s:start(["true"]),
    {exit, 0} = ?s:recv(P),
    [
        ?assertEqual({error, closed}, Call())
     || Call <- [
            fun() -> ?s:recv(P) end,
            fun() -> ?s:recv(P, 0) end,
            fun() -> ?s:active(P, 1) end,
            fun() -> ?s:active(P, false) end,
            fun() -> ?s:write(P, "x") end,
            fun() -> ?s:write(P, "") end,
            fun() -> ?s:close_stdin(P) end,
            fun() -> ?s:signal(P, sigterm) end,
            fun() -> ?s:os_pid(P) end,
            fun() -> ?s:info(P) end,
            fun() -> ?s:stop(P) end
        ]
    ].

ownership() ->
    {ok, P} = ?s:start(["cat"]),
    elsewhere(fun() ->
        [
            ?assertError(not_owner, Call())
         || Call <- [
                fun() -> ?s:recv(P) end,
                fun() -> ?s:active(P, 1) end,
                fun() -> ?s:stop(P) end
            ]
        ],
        ok = ?s:write(P, "from elsewhere"),
        {ok, _} = ?s:os_pid(P),
        ok = ?s:close_stdin(P)
    end),
    ?assertEqual({ok, {stdout, <<"from elsewhere">>}}, ?s:recv(P)),
    ?assertEqual({exit, 0}, ?s:recv(P)).

misuse() ->
    {ok, P} = ?s:start(["cat"]),
    [
        ?assertEqual(Explanation, explanation(Call))
     || {Explanation, Call} <- [
            {#{1 => "not a list of a program and its arguments, binaries or strings without NUL"},
                fun() -> ?s:start("") end},
            {#{1 => "not a list of a program and its arguments, binaries or strings without NUL"},
                fun() -> ?s:run([<<"a", 0>>]) end},
            {#{2 => "unknown option foo (known: cd, clear_env, env, kill_timeout, loop, stderr, stdin, stdout)"},
                fun() -> ?s:start(["true"], #{foo => 1}) end},
            {#{2 => "option stdout is neither stream, merge, null nor {file, Path}"},
                fun() -> ?s:start(["true"], #{stdout => pipe}) end},
            {#{2 => "option env is not a list of {Name, Value | false} or a map, of binaries or strings without NUL"},
                fun() -> ?s:run(["true"], #{env => [{"A=B", "1"}]}) end},
            {#{2 => "stdout and stderr cannot both be merge"},
                fun() -> ?s:run(["true"], #{stdout => merge, stderr => merge}) end},
            {#{1 => "not a subprocess"}, fun() -> ?s:recv(make_ref()) end},
            {#{1 => "not a subprocess"}, fun() -> ?s:write(nothing, "x") end},
            {#{2 => "not iodata"}, fun() -> ?s:write(P, atom) end},
            {#{2 => "neither the name (as sigterm) nor the number of a signal"}, fun() -> ?s:signal(P, sigfoo) end},
            {#{2 => "neither the name (as sigterm) nor the number of a signal"}, fun() -> ?s:signal(P, 65) end},
            {#{2 => "neither once, false nor an integer from 1 to 2^31-1"}, fun() -> ?s:active(P, 0) end}
        ]
    ],
    ok = ?s:stop(P).

explanation(Call) ->
    try Call() of
        Result -> Result
    catch
        error:badarg:Stacktrace ->
            maps:map(
                fun(_, Text) -> unicode:characters_to_list(Text) end,
                tokamak_error:format_error(badarg, Stacktrace)
            )
    end.

%%% Helpers

collect(P, Out, Err) ->
    case ?s:recv(P) of
        {ok, {stdout, Bin}} -> collect(P, Out + byte_size(Bin), Err);
        {ok, {stderr, Bin}} -> collect(P, Out, Err + byte_size(Bin));
        {exit, Status} -> {Status, Out, Err}
    end.

nothing_is_left() ->
    ?assertEqual([], [M || M <- element(2, process_info(self(), messages)), element(1, M) =:= tokamak]).

no_children() ->
    {ok, Spawner, Children} = tokamak_nif:subprocess_spawner(),
    Children =:= 0 andalso tokamak_wait:children(Spawner) =:= [].

elsewhere(Fun) ->
    {Pid, Monitor} = spawn_monitor(Fun),
    receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual(normal, Reason) end.
