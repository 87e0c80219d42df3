%% SPDX-License-Identifier: Apache-2.0
%% Processes that can be reached by name outlive calls, casts and messages that are not for them.
-module(tokamak_stray_message_tests).

-include_lib("eunit/include/eunit.hrl").

stray_message_test_() ->
    tokamak_test:with_application(
        tokamak_test:cases([
            {"the processes of the application ignore what is not for them", fun servers/0},
            {"a named loop ignores what is not for it", fun loops/0},
            {"the process that is told of a raw loop's descriptors does, too", fun selector/0}
        ])
    ).

servers() ->
    [survives(whereis(Name)) || Name <- [tokamak_engines, tokamak_reaper, tokamak_router, tokamak_alarms]].

loops() ->
    [loop(Backend) || Backend <- [native, select]].

loop(Backend) ->
    {ok, Loop} = tokamak_loop:new(#{name => ?MODULE, backend => Backend}),
    Ref = tokamak_loop:register(Loop, 1, self()),
    survives(whereis(?MODULE)),
    %% Requests of its own that no function makes.
    [?assertEqual({error, unknown}, gen_server:call(?MODULE, {register, Id, Pid})) ||
        {Id, Pid} <- [{0, self()}, {id, self()}, {2, name}]],
    ok = tokamak_loop:post(Loop, 1, user, hello),
    ?assertEqual({event, 1, user, hello}, receive {tokamak, Ref, Event} -> Event after 5000 -> none end),
    ok = tokamak_loop:destroy(Loop).

selector() ->
    {ok, Loop} = tokamak_loop:open(#{backend => select}),
    {ok, Read, Write} = tokamak_fd:pipe(),
    Selectors = [Pid || {_, Pid, _, [tokamak_selector]} <- supervisor:which_children(tokamak_loop_sup)],
    [strays(Pid) || Pid <- Selectors],
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    {ok, 1} = tokamak_fd:write(Write, "x"),
    ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
    ok = tokamak_loop:destroy(Loop).

survives(Pid) ->
    ?assertEqual({error, unknown}, gen_server:call(Pid, nonsense)),
    ?assertEqual({error, unknown}, gen_server:call(Pid, {nonsense, 1, 2})),
    gen_server:cast(Pid, nonsense),
    strays(Pid),
    %% All of it was handled before this answer.
    ?assertEqual({error, unknown}, gen_server:call(Pid, nonsense)),
    ?assert(is_process_alive(Pid)).

strays(Pid) ->
    Strays = [
        nonsense,
        {tokamak, make_ref(), ready},
        {select, make_ref(), undefined, ready_input},
        {select, fd, undefined, ready_output},
        {select, fd, undefined, nonsense},
        {'DOWN', make_ref(), process, self(), normal},
        {timeout, make_ref(), nonsense}
    ],
    [Pid ! Stray || Stray <- Strays].
