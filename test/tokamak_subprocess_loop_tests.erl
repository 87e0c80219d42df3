%% SPDX-License-Identifier: Apache-2.0
%% Subprocesses whose output and exit are events of a loop.
-module(tokamak_subprocess_loop_tests).

-include_lib("eunit/include/eunit.hrl").

-define(s, tokamak_subprocess).

loop_test_() ->
    {setup, fun() -> {ok, _} = application:ensure_all_started(tokamak) end,
        fun(_) -> application:stop(tokamak) end, [
            {"a poller gets both outputs and then the exit", fun poller/0},
            {"a handler gets them as messages", fun handler/0},
            {"the owner of a raw loop drains them", fun raw/0},
            {"a child that floods waits while nobody polls, and nothing is lost", {timeout, 60, fun flood/0}},
            {"a child that floods waits while its handler does not receive, and nothing is lost",
                {timeout, 60, fun flood_of_a_handler/0}},
            {"a child that floods waits while its handler's mailbox is long, and nothing is lost",
                {timeout, 60, fun flood_of_a_lagging_handler/0}},
            {"a child waits whose handler takes only events of another id", {timeout, 60, fun choosy_handler/0}},
            {"a child that waits for its handler goes on when that dies, leaves or is replaced",
                {timeout, 60, fun flood_without_its_handler/0}},
            {"many small outputs reach a handler that waits for the exit first", {timeout, 60, fun exit_first/0}},
            {"recv and active are for others", fun not_supported/0},
            {"the subprocess is stopped when its loop ends", fun loop_ends/0},
            {"a start is told when its loop ends meanwhile", {timeout, 60, fun loop_ends_meanwhile/0}},
            {"the loop is told the exit of a subprocess whose owner died", fun owner_dies/0},
            {"the loop is told all output of a child that exited before its owner died", fun owner_dies_after_exit/0},
            {"a killed spawner is an exit with an error", fun spawner_dies/0},
            {"a closed loop and wrong loops are refused", fun refused/0}
        ]}.

poller() ->
    {ok, Loop} = tokamak_loop:new(),
    {ok, P} = ?s:start(["sh", "-c", "echo out; echo err >&2; read x; exit 3"], #{loop => {Loop, 7}}),
    Two = lists:sort(poll(Loop, 2)),
    ?assertEqual([{7, subprocess_stderr, <<"err\n">>}, {7, subprocess_stdout, <<"out\n">>}], Two),
    ok = ?s:write(P, "\n"),
    ?assertEqual([{7, subprocess_exit, 3}], poll(Loop, 1)),
    {ok, _} = ?s:start(["sh", "-c", "kill -9 $$"], #{loop => {Loop, 8}}),
    ?assertEqual([{8, subprocess_exit, {signal, 9}}], poll(Loop, 1)),
    ?assertEqual([], tokamak_loop:poll(Loop, 20)),
    ok = tokamak_loop:destroy(Loop).

poll(_Loop, N) when N =< 0 -> [];
poll(Loop, N) ->
    [_ | _] = Events = tokamak_loop:poll(Loop, 5000),
    Events ++ poll(Loop, N - length(Events)).

handler() ->
    {ok, Loop} = tokamak_loop:new(),
    Ref = tokamak_loop:register(Loop, 5, self()),
    {ok, P} = ?s:start(["cat"], #{loop => {Loop, 5}}),
    ok = ?s:write(P, "hello"),
    receive {tokamak, Ref, Hello} -> ?assertEqual({event, 5, subprocess_stdout, <<"hello">>}, Hello) end,
    ok = ?s:close_stdin(P),
    receive {tokamak, Ref, Exit} -> ?assertEqual({event, 5, subprocess_exit, 0}, Exit) end,
    ok = tokamak_loop:destroy(Loop),
    receive {tokamak, Ref, Last} -> ?assertEqual(closed, Last) end.

raw() ->
    {ok, Loop} = tokamak_loop:open(),
    {ok, _} = ?s:start(["echo", "raw"], #{loop => {Loop, 9}}),
    ?assertEqual(
        [{9, subprocess_stdout, <<"raw\n">>}, {9, subprocess_exit, 0}],
        poll(Loop, 2)
    ),
    ok = tokamak_loop:destroy(Loop).

flood() ->
    {ok, Loop} = tokamak_loop:new(),
    {ok, _} = ?s:start(["head", "-c", "100000000", "/dev/zero"], #{loop => {Loop, 1}}),
    tokamak_wait:until(fun() -> maps:get(queued, tokamak_loop:info(Loop)) =:= 16 end),
    receive after 200 -> ok end,
    ?assertMatch(#{queued := 16}, tokamak_loop:info(Loop)),
    ?assertEqual({0, 100000000}, count(Loop, 0)),
    ok = tokamak_loop:destroy(Loop).

count(Loop, Bytes) ->
    Events = tokamak_loop:poll(Loop, 5000),
    More = lists:sum([byte_size(Bin) || {1, subprocess_stdout, Bin} <- Events]),
    case lists:last(Events) of
        {1, subprocess_exit, Status} -> {Status, Bytes + More};
        _ -> count(Loop, Bytes + More)
    end.

%% What `seq' writes to a handler that is asleep: more than may be under way to it.
-define(NUMBERS, 6_000_000).
-define(UNDER_WAY, 16 * 1024 * 1024).

flood_of_a_handler() ->
    {ok, Loop} = tokamak_loop:new(#{max_queue => 1000}),
    {Handler, Ref} = sleeping_handler(Loop, 1),
    P = start_seq(Loop, 1),
    waits(P),
    ?assert(maps:get(queued, tokamak_loop:info(Loop)) =< 16),
    ok = tokamak_loop:post(Loop, 2, user, others_go_on),
    ?assertEqual([{2, user, others_go_on}], poll(Loop, 1)),
    Handler ! {take, self(), Ref},
    ?assertEqual({0, md5_of_seq()}, taken(Handler)),
    ok = tokamak_loop:destroy(Loop).

flood_of_a_lagging_handler() ->
    {ok, Loop} = tokamak_loop:new(#{max_queue => 10_000}),
    {Handler, Ref} = sleeping_handler(Loop, 1),
    [ok = tokamak_loop:post(Loop, 1, user, N) || N <- lists:seq(1, 5000)],
    tokamak_wait:until(fun() -> tokamak_test:mailbox_length(Handler) > 1024 end),
    P = start_seq(Loop, 1),
    tokamak_wait:until(fun() -> maps:get(queued, tokamak_loop:info(Loop)) + tokamak_test:mailbox_length(Handler) =:= 5016 end),
    receive after 200 -> ok end,
    ?assertEqual(5016, maps:get(queued, tokamak_loop:info(Loop)) + tokamak_test:mailbox_length(Handler)),
    ?assertMatch(#{stdout := Bytes} when Bytes =< ?UNDER_WAY, ?s:info(P)),
    Handler ! {take, self(), Ref},
    ?assertEqual({0, md5_of_seq()}, taken(Handler)),
    tokamak_wait:until(fun() -> maps:get(queued, tokamak_loop:info(Loop)) =:= 0 end),
    ok = tokamak_loop:destroy(Loop).

%% Each window of the other id has the loop look at the mailbox, while nothing of the child's is owed.
choosy_handler() ->
    {ok, Loop} = tokamak_loop:new(),
    Test = self(),
    Handler = spawn(fun() -> pass_on(Test) end),
    [_ = tokamak_loop:register(Loop, Id, Handler) || Id <- [1, 2]],
    {ok, P} = ?s:start(["cat"], #{loop => {Loop, 1}}),
    Writer = spawn(fun() -> write_in_turns(P, Test) end),
    lists:foreach(fun(_) -> turn(Loop, Writer) end, lists:seq(1, 16)),
    ?assertMatch(#{stdout := Bytes} when Bytes =< ?UNDER_WAY, ?s:info(P)),
    [exit(Pid, kill) || Pid <- [Handler, Writer]],
    ok = tokamak_loop:destroy(Loop).

%% The child has 2 MiB more to write, if it may; then the handler is sent more than a window of the other id.
turn(Loop, Writer) ->
    Writer ! write,
    receive {Writer, written} -> ok after 100 -> waits end,
    Posts = lists:seq(1, 1100),
    [ok = tokamak_loop:post(Loop, 2, user, N) || N <- Posts],
    [receive {passed_on, N} -> ok after 5000 -> erlang:error({missing, N}) end || N <- Posts],
    ok.

write_in_turns(P, Test) ->
    receive write -> ok end,
    ok = ?s:write(P, binary:copy(<<0>>, 2 * 1024 * 1024), infinity),
    Test ! {self(), written},
    write_in_turns(P, Test).

pass_on(Test) ->
    receive {tokamak, _, {event, 2, user, N}} -> Test ! {passed_on, N} end,
    pass_on(Test).

flood_without_its_handler() ->
    [
        begin
            {ok, Loop} = tokamak_loop:new(),
            {Handler, _} = sleeping_handler(Loop, 1),
            P = start_seq(Loop, 1),
            waits(P),
            End(Loop, Handler),
            exit(Handler, kill),
            ok = tokamak_loop:destroy(Loop)
        end
     || End <- [fun handler_dies/2, fun handler_leaves/2, fun handler_is_replaced/2]
    ].

handler_dies(Loop, Handler) ->
    exit(Handler, kill),
    ?assertMatch({0, _}, count(Loop, 0)).

handler_leaves(Loop, _Handler) ->
    ok = tokamak_loop:unregister(Loop, 1),
    ?assertMatch({0, _}, count(Loop, 0)).

handler_is_replaced(Loop, _Handler) ->
    Ref = tokamak_loop:register(Loop, 1, self()),
    ?assertMatch({0, _}, receive_output(Ref, erlang:md5_init())).

%% The child has more of small outputs than its window: waiting for the exit must not keep it from coming.
exit_first() ->
    {ok, Loop} = tokamak_loop:new(),
    Ref = tokamak_loop:register(Loop, 1, self()),
    {ok, P} = ?s:start(["cat"], #{loop => {Loop, 1}}),
    [
        begin
            ok = ?s:write(P, "x"),
            tokamak_wait:until(fun() -> maps:get(stdout, ?s:info(P)) =:= N end)
        end
     || N <- lists:seq(1, 100)
    ],
    ok = ?s:close_stdin(P),
    receive
        {tokamak, Ref, {event, 1, subprocess_exit, Status}} -> ?assertEqual(0, Status)
    after 5000 -> erlang:error(no_exit)
    end,
    ?assertEqual(100, length([x || {tokamak, _, {event, 1, subprocess_stdout, <<"x">>}} <- tokamak_test:mailbox()])),
    ok = tokamak_loop:destroy(Loop).

start_seq(Loop, Id) ->
    {ok, P} = ?s:start(["seq", integer_to_list(?NUMBERS)], #{loop => {Loop, Id}}),
    P.

md5_of_seq() ->
    [Sum, _] = string:split(os:cmd("seq " ++ integer_to_list(?NUMBERS) ++ " | md5sum"), " "),
    Sum.

%% It wrote what may be under way, and then no more.
waits(P) ->
    tokamak_wait:until(fun() -> maps:get(stdout, ?s:info(P)) >= 4 * 1024 * 1024 end),
    receive after 200 -> ok end,
    ?assertMatch(#{stdout := Bytes} when Bytes =< ?UNDER_WAY, ?s:info(P)).

sleeping_handler(Loop, Id) ->
    Handler = spawn(fun() ->
        receive {take, From, Ref} -> From ! {self(), receive_output(Ref, erlang:md5_init())} end
    end),
    {Handler, tokamak_loop:register(Loop, Id, Handler)}.

receive_output(Ref, Sum) ->
    receive
        {tokamak, Ref, {event, 1, subprocess_stdout, Bin}} -> receive_output(Ref, erlang:md5_update(Sum, Bin));
        {tokamak, Ref, {event, 1, subprocess_exit, Status}} ->
            {Status, string:lowercase(binary_to_list(binary:encode_hex(erlang:md5_final(Sum))))};
        {tokamak, Ref, {event, 1, user, _}} -> receive_output(Ref, Sum)
    after 10_000 -> output_missing
    end.

taken(Handler) ->
    receive {Handler, Taken} -> Taken after 40_000 -> erlang:error(handler_got_not_enough) end.

not_supported() ->
    {ok, Loop} = tokamak_loop:new(),
    {ok, P} = ?s:start(["cat"], #{loop => {Loop, 1}}),
    ?assertEqual({error, not_supported}, ?s:recv(P)),
    ?assertEqual({error, not_supported}, ?s:active(P, 1)),
    ok = ?s:stop(P),
    ?assertEqual([{1, subprocess_exit, {signal, 15}}], poll(Loop, 1)),
    ?assertEqual({error, closed}, ?s:recv(P)),
    ok = tokamak_loop:destroy(Loop).

loop_ends() ->
    {ok, Loop} = tokamak_loop:new(),
    {ok, P} = ?s:start(["sleep", "86400"], #{loop => {Loop, 1}}),
    {ok, OsPid} = ?s:os_pid(P),
    ok = tokamak_loop:destroy(Loop),
    tokamak_wait:until(fun() -> not tokamak_wait:is_running(OsPid) end),
    ?assertEqual({error, closed}, ?s:info(P)).

%% The moment is another one each time.
loop_ends_meanwhile() ->
    Results = [start_while_loop_ends(N * 10) || N <- lists:seq(1, 200)],
    ?assertEqual([], [Wrong || Wrong <- Results, not lists:member(Wrong, [started, {error, closed}])]),
    ?assert(lists:member({error, closed}, Results)).

start_while_loop_ends(Loops) ->
    {ok, Loop} = tokamak_loop:new(),
    Self = self(),
    Starter = spawn_link(fun() ->
        Self ! {self(), starts},
        Result = ?s:start(["true"], #{loop => {Loop, 1}}),
        Self ! {self(), Result}
    end),
    receive {Starter, starts} -> ok end,
    _ = lists:sum(lists:seq(1, Loops * 10)),
    ok = tokamak_loop:destroy(Loop),
    receive
        {Starter, {ok, _}} -> started;
        {Starter, Error} -> Error
    after 10_000 -> process_info(Starter, [current_function, messages])
    end.

owner_dies() ->
    {ok, Loop} = tokamak_loop:new(),
    Self = self(),
    Owner = spawn(fun() ->
        Self ! ?s:start(["sh", "-c", "echo out; sleep 86400"], #{loop => {Loop, 3}}),
        receive after infinity -> ok end
    end),
    receive {ok, _} -> ok end,
    ?assertEqual([{3, subprocess_stdout, <<"out\n">>}], poll(Loop, 1)),
    exit(Owner, kill),
    ?assertEqual([{3, subprocess_exit, {signal, 15}}], poll(Loop, 1)),
    %% Another one had exited before, while a descendant has its output.
    Exited = spawn(fun() ->
        Self ! ?s:start(["sh", "-c", "sleep 86400 & exit 4"], #{loop => {Loop, 3}}),
        receive after infinity -> ok end
    end),
    receive {ok, P} -> tokamak_wait:until(fun() -> maps:get(state, ?s:info(P)) =:= exited end) end,
    exit(Exited, kill),
    ?assertEqual([{3, subprocess_exit, 4}], poll(Loop, 1)),
    ?assertEqual([], tokamak_loop:poll(Loop, 20)),
    ok = tokamak_loop:destroy(Loop).

%% More small outputs than the window: the rest is in the pipe when the owner dies.
owner_dies_after_exit() ->
    {ok, Loop} = tokamak_loop:new(),
    Self = self(),
    Owner = spawn(fun() ->
        {ok, P} = ?s:start(["cat"], #{loop => {Loop, 1}}),
        Self ! {self(), P},
        receive never -> ok end
    end),
    P = receive {Owner, Started} -> Started end,
    [
        begin
            ok = ?s:write(P, "x"),
            tokamak_wait:until(fun() -> maps:get(stdout, ?s:info(P)) =:= min(N, 16) end)
        end
     || N <- lists:seq(1, 100)
    ],
    ok = ?s:close_stdin(P),
    tokamak_wait:until(fun() -> maps:get(state, ?s:info(P)) =:= exited end),
    Owners = maps:get(owners, tokamak:stats()),
    ok = tokamak_test:kill(Owner),
    tokamak_wait:until(fun() -> maps:get(owners, tokamak:stats()) < Owners end),
    ?assertEqual({0, 100}, count(Loop, 0)),
    ok = tokamak_loop:destroy(Loop).

spawner_dies() ->
    {ok, Loop} = tokamak_loop:new(),
    {ok, _} = ?s:start(["sleep", "86400"], #{loop => {Loop, 1}}),
    tokamak_wait:kill_spawner(),
    ?assertEqual([{1, subprocess_exit, {error, spawner_died}}], poll(Loop, 1)),
    ok = tokamak_loop:destroy(Loop).

refused() ->
    {ok, Loop} = tokamak_loop:new(),
    ?assertError(badarg, ?s:start(["true"], #{loop => Loop})),
    ?assertError(badarg, ?s:start(["true"], #{loop => {Loop, 0}})),
    ?assertError(badarg, ?s:start(["true"], #{loop => {make_ref(), 1}})),
    ok = tokamak_loop:destroy(Loop),
    ?assertEqual({error, closed}, ?s:start(["true"], #{loop => {Loop, 1}})).
