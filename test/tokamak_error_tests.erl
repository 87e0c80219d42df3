%% SPDX-License-Identifier: Apache-2.0
%% Wrong arguments raise badarg, and the error says which argument was wrong and what it should be.
-module(tokamak_error_tests).

-include_lib("eunit/include/eunit.hrl").

error_test_() ->
    tokamak_test:with_application(
        tokamak_test:cases([
            {"wrong arguments of every function are explained", fun wrong_arguments/0},
            {"every public function is among them", fun every_function_is_tried/0},
            {"wrong options are explained by key", fun wrong_options/0},
            {"the shell shows the explanation", fun the_shell_shows_it/0},
            {"not_owner is explained", fun not_owner_is_explained/0},
            {"a general explanation is a binary, as Elixir wants it", fun a_general_explanation_is_a_binary/0},
            {"closed handles are no wrong arguments", fun closed_handles_are_handles/0}
        ])
    ).

%% {Module, Function, Arguments, the positions of the wrong ones}
wrong(Loop, Raw, Fd) ->
    Others = [not_a_handle, make_ref(), self(), 1, <<>>],
    Ids = [0, -1, 1 bsl 63, 1 bsl 64, 1.0, id],
    NotLoops = [Fd | Others],
    NotFds = [Loop | Others],
    lists:append([
        [{tokamak_id, next, [N], [1]} || N <- [0, -1, one, 1.5, 1 bsl 64, 1 bsl 63 - 1]],
        [{tokamak_loop, F, [L], [1]} || F <- [destroy, info, drain], L <- NotLoops],
        [{tokamak_loop, F, [O], [1]} || F <- [new, open], O <- [[], atom, <<>>, 1]],
        [{tokamak_loop, poll, [L, 0], [1]} || L <- NotLoops],
        [{tokamak_loop, poll, [L, T], [2]} || L <- [Loop, Raw], T <- [-1, 1.0, soon, 1 bsl 32]],
        [{tokamak_loop, poll, [x, x], [1, 2]}],
        [{tokamak_loop, drain, [L, 1], [1]} || L <- NotLoops],
        [{tokamak_loop, drain, [Raw, N], [2]} || N <- [0, -1, 1 bsl 31, all, 1.0]],
        [{tokamak_loop, drain, [x, 0], [1, 2]}],
        [{tokamak_loop, F, [L, Fd, 1], [1]} || F <- [add_reader, add_writer], L <- NotLoops],
        [{tokamak_loop, F, [Loop, X, 1], [2]} || F <- [add_reader, add_writer], X <- NotFds],
        [{tokamak_loop, F, [Loop, Fd, Id], [3]} || F <- [add_reader, add_writer], Id <- Ids],
        [{tokamak_loop, F, [Fd, Loop, 0], [1, 2, 3]} || F <- [add_reader, add_writer]],
        [{tokamak_loop, F, [L, Fd], [1]} || F <- [remove_reader, remove_writer], L <- NotLoops],
        [{tokamak_loop, F, [Loop, X], [2]} || F <- [remove_reader, remove_writer], X <- NotFds],
        [{tokamak_loop, start_timer, [L, 1, 1], [1]} || L <- NotLoops],
        [{tokamak_loop, start_timer, [Loop, T, 1], [2]} || T <- [-1, 1.5, soon, 1 bsl 48, 1 bsl 70]],
        [{tokamak_loop, start_timer, [Loop, 1, Id], [3]} || Id <- Ids],
        [{tokamak_loop, start_timer, [x, x, x], [1, 2, 3]}],
        [{tokamak_loop, cancel_timer, [L, 1], [1]} || L <- NotLoops],
        [{tokamak_loop, cancel_timer, [Loop, T], [2]} || T <- [-1, 1.5, timer, make_ref(), 1 bsl 64]],
        [{tokamak_loop, register, [L, 1, self()], [1]} || L <- NotLoops],
        [{tokamak_loop, register, [L, Id, self()], [2]} || L <- [Loop, Raw], Id <- Ids],
        [{tokamak_loop, register, [Loop, 1, P], [3]} || P <- [name, 1, remote_pid(), make_ref()]],
        [{tokamak_loop, unregister, [L, 1], [1]} || L <- NotLoops],
        [{tokamak_loop, unregister, [L, Id], [2]} || L <- [Loop, Raw], Id <- Ids],
        [{tokamak_loop, post, [L, 1, user, x], [1]} || L <- NotLoops],
        [{tokamak_loop, post, [Loop, Id, user, x], [2]} || Id <- Ids],
        [{tokamak_loop, post, [Loop, 1, T, x], [3]} || T <- [no_type, <<"user">>, 40, [user]]],
        [{tokamak_loop, adopt, [Loop, S, 1], [2]} || S <- [socket, self(), 1, make_ref()]],
        [{tokamak_loop, adopt, [x, x, 0], [1, 2, 3]}],
        [{tokamak_fd, F, [X, 1], [1]} || F <- [read, read_and_reselect], X <- NotFds],
        [{tokamak_fd, F, [Fd, N], [2]} || F <- [read, read_and_reselect], N <- [0, -1, 1 bsl 31, a]],
        [{tokamak_fd, F, [x, 0], [1, 2]} || F <- [read, read_and_reselect]],
        [{tokamak_fd, write, [X, <<>>], [1]} || X <- NotFds],
        [{tokamak_fd, write, [Fd, D], [2]} || D <- [atom, 1, [256], [-1], [a], <<1:1>>, #{}]],
        [{tokamak_fd, write, [Fd, [<<"x">> | 1]], [2]}],
        [{tokamak_fd, close, [X], [1]} || X <- NotFds],
        [{tokamak_fd, controlling_process, [X, self()], [1]} || X <- NotFds],
        [{tokamak_fd, controlling_process, [Fd, P], [2]} || P <- [name, 1, remote_pid()]],
        [{tokamak_fd, handle_fd_event_and_reselect, [X, read], [1]} || X <- NotFds],
        [{tokamak_fd, handle_fd_event_and_reselect, [Fd, D], [2]} || D <- [both, <<"read">>, none]],
        [{tokamak_fd, from_integer, [N], [1]} || N <- [-1, 1 bsl 31, 1.0, stdin, 1 bsl 70]],
        [{tokamak_fd, open, [P, [read]], [1]} || P <- [1, <<"a", 0>>, "a" ++ [0], [a, 1.5], self()]],
        [{tokamak_fd, open, ["f", M], [2]} || M <- [[], read, [write | x], [binary], [exclusive], [1]]],
        [{tokamak_fd, open, [1, []], [1, 2]}]
    ]).

%% A pid of another node, as it comes from the network.
remote_pid() ->
    Name = <<"other@host">>,
    binary_to_term(<<131, 88, 119, (byte_size(Name)), Name/binary, 1:32, 0:32, 1:32>>).

wrong_arguments() ->
    [?assertEqual({Call, Positions}, {Call, explained(Call)}) || {Call, Positions} <- table()].

table() ->
    Loop = tokamak_test:new_loop(native),
    Raw = tokamak_test:raw_loop(native),
    {Fd, _} = tokamak_test:pipe(),
    [{{M, F, Args}, Positions} || {M, F, Args, Positions} <- wrong(Loop, Raw, Fd)].

%% The arguments that the error of a call names.
explained({Module, Function, Arguments}) ->
    Explanation = explanation(Module, Function, Arguments),
    [?assertMatch([_ | _], lists:flatten(Text)) || Text <- maps:values(Explanation)],
    lists:sort(maps:keys(Explanation)).

explanation(Module, Function, Arguments) ->
    Stack = stack_of(badarg, Module, Function, Arguments),
    [{_, _, _, Info} | _] = Stack,
    #{module := Explainer} = proplists:get_value(error_info, Info),
    Explainer:format_error(badarg, Stack).

%% The stack trace of a call that raises; it begins with the call itself.
stack_of(Reason, Module, Function, Arguments) ->
    try apply(Module, Function, Arguments) of
        Result -> erlang:error({not_refused, {Module, Function, Arguments}, Result})
    catch
        error:Reason:Stack ->
            ?assertMatch([{Module, Function, Arguments, _} | _], Stack),
            Stack
    end.

every_function_is_tried() ->
    Tried = lists:usort([{M, F, length(Args)} || {{M, F, Args}, _} <- table()]),
    %% Without arguments, taking any term, or not for users.
    Others = [
        {tokamak_id, next, 0},
        {tokamak_loop, new, 0},
        {tokamak_loop, open, 0},
        {tokamak_loop, event_types, 0},
        {tokamak_fd, pipe, 0},
        {tokamak_fd, native_path, 1},
        {tokamak_fd, native_flags, 1}
    ],
    %% These have tests of their own.
    Submits = [{tokamak_loop, submit, 4}, {tokamak_loop, submit_many, 2}],
    Exported = [
        {Module, Function, Arity}
     || Module <- [tokamak_id, tokamak_loop, tokamak_fd],
        {Function, Arity} <- Module:module_info(exports),
        Function =/= module_info
    ],
    ?assertEqual([], (Exported -- Tried) -- (Others ++ Submits)).

wrong_options() ->
    Wrong = [
        {backend, epoll, "native nor select"},
        {max_queue, 0, "1 to 16777216"},
        {max_queue, 16777217, "1 to 16777216"},
        {max_timers, -1, "1 to 16777216"},
        {max_timers, many, "1 to 16777216"},
        {colour, green, "unknown option colour"}
    ],
    [
        begin
            #{1 := Text} = explanation(tokamak_loop, F, [#{Key => Value}]),
            Flat = lists:flatten(Text),
            ?assertMatch({match, _}, re:run(Flat, Expected)),
            ?assertMatch({match, _}, re:run(Flat, atom_to_list(Key)))
        end
     || {Key, Value, Expected} <- Wrong, F <- [new, open]
    ],
    #{1 := Name} = explanation(tokamak_loop, new, [#{name => "name"}]),
    ?assertMatch({match, _}, re:run(lists:flatten(Name), "name is not an atom that")),
    #{1 := Undefined} = explanation(tokamak_loop, new, [#{name => undefined}]),
    ?assertMatch({match, _}, re:run(lists:flatten(Undefined), "name is not an atom that")),
    #{1 := Two} = explanation(tokamak_loop, new, [#{max_queue => 0, backend => epoll}]),
    ?assertMatch({match, _}, re:run(lists:flatten(Two), "nor select; option max_queue is")),
    #{1 := Unknown} = explanation(tokamak_loop, open, [#{name => name}]),
    ?assertMatch({match, _}, re:run(lists:flatten(Unknown), "unknown option name")).

the_shell_shows_it() ->
    Loop = tokamak_test:new_loop(native),
    Text =
        try
            tokamak_loop:start_timer(Loop, -5, 1)
        catch
            Class:Reason:Stack -> lists:flatten(erl_error:format_exception(Class, Reason, Stack))
        end,
    ?assertMatch({match, _}, re:run(Text, "start_timer")),
    ?assertMatch({match, _}, re:run(Text, "argument 2: not a number of milliseconds from 0")).

not_owner_is_explained() ->
    {Fd, _} = tokamak_test:pipe(),
    Raw = tokamak_test:raw_loop(native),
    [
        tokamak_test:in_process(fun() ->
            Stack = stack_of(not_owner, Module, Function, Arguments),
            Text = lists:flatten(erl_error:format_exception(error, not_owner, Stack)),
            ?assertMatch({match, _}, re:run(Text, "the calling process is not the owner"))
        end)
     || {Module, Function, Arguments} <- [
            {tokamak_fd, close, [Fd]},
            {tokamak_fd, controlling_process, [Fd, self()]},
            {tokamak_loop, drain, [Raw]},
            {tokamak_loop, drain, [Raw, 1]},
            {tokamak_loop, poll, [Raw, 0]},
            {tokamak_loop, poll, [Raw, 1]},
            {tokamak_loop, destroy, [Raw]}
        ]
    ].

%% Exception.normalize/3 appends it to a string.
a_general_explanation_is_a_binary() ->
    {Fd, _} = tokamak_test:pipe(),
    tokamak_test:in_process(fun() ->
        Stack = stack_of(not_owner, tokamak_fd, close, [Fd]),
        ?assertMatch(#{general := <<"the calling", _/binary>>}, tokamak_error:format_error(not_owner, Stack))
    end).

closed_handles_are_handles() ->
    Loop = tokamak_test:raw_loop(native),
    ok = tokamak_loop:destroy(Loop),
    {Fd, _} = tokamak_test:pipe(),
    ok = tokamak_fd:close(Fd),
    ?assertEqual([3], explained({tokamak_loop, add_reader, [Loop, Fd, 0]})),
    ?assertEqual([2], explained({tokamak_loop, start_timer, [Loop, -1, 1]})),
    ?assertEqual([2], explained({tokamak_fd, read, [Fd, 0]})),
    ?assertEqual([2], explained({tokamak_fd, write, [Fd, atom]})).
