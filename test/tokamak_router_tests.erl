%% SPDX-License-Identifier: Apache-2.0
%% The set of loops: a key keeps its loop, and a loop that ends is replaced.
-module(tokamak_router_tests).

-include_lib("eunit/include/eunit.hrl").

-import(tokamak_test, [kill/1, quietly/1, wait_for/2, wait_until/1]).

router_test_() ->
    tokamak_test:with_application(
        tokamak_test:cases([
            {"there is one loop a scheduler", fun one_loop_a_scheduler/0},
            {"a key has the same loop for everybody", fun a_key_keeps_its_loop/0},
            {"keys use all loops", fun keys_use_all_loops/0},
            {"a killed loop is replaced, the others stay", fun a_killed_loop_is_replaced/0},
            {"a destroyed loop is replaced", fun a_destroyed_loop_is_replaced/0},
            {"users of a killed loop are told at once", fun users_are_told/0},
            {"a killed router finds its loops again", fun a_killed_router_finds_its_loops/0},
            {"a router that was killed with its loops replaces them", fun all_are_killed/0},
            {"strange messages and calls do not disturb it", fun strange_messages/0}
        ])
    ).

stopped_test() ->
    quietly(fun() -> application:stop(tokamak) end),
    ?assertEqual({error, shutdown}, tokamak_router:loop_for(key)),
    ?assertEqual([], tokamak_router:loops()).

configured_test_() ->
    {setup, fun() -> application:set_env(tokamak, loops, 5) end,
        fun(_) -> application:unset_env(tokamak, loops) end,
        {"the number of loops can be configured",
            tokamak_test:with_application(fun() ->
                ?assertEqual(5, length(lists:usort(tokamak_router:loops())))
            end)}}.

one_loop_a_scheduler() ->
    Loops = tokamak_router:loops(),
    ?assertEqual(erlang:system_info(schedulers_online), length(lists:usort(Loops))),
    [?assertMatch(#{kind := supervised}, tokamak_loop:info(Loop)) || Loop <- Loops].

a_key_keeps_its_loop() ->
    Keys = [1, key, "key", <<"key">>, {key, self()}, make_ref(), #{}, 1.5],
    Loops = [tokamak_router:loop_for(Key) || Key <- Keys],
    [?assert(lists:member(Loop, tokamak_router:loops())) || Loop <- Loops],
    Others = [
        tokamak_test:in_process(fun() -> [tokamak_router:loop_for(Key) || Key <- Keys] end)
     || _ <- lists:seq(1, 10)
    ],
    ?assertEqual([Loops], lists:usort(Others)).

keys_use_all_loops() ->
    Used = lists:usort([tokamak_router:loop_for(N) || N <- lists:seq(1, 1000)]),
    ?assertEqual(lists:sort(tokamak_router:loops()), Used).

a_killed_loop_is_replaced() ->
    Before = tokamak_router:loops(),
    Loop = tokamak_router:loop_for(key),
    ok = kill_loop(Loop),
    wait_until(fun() -> tokamak_router:loop_for(key) =/= Loop end),
    ?assertEqual([Loop], Before -- tokamak_router:loops()),
    serves(key).

kill_loop(Loop) ->
    #{owner := Process} = tokamak_loop:info(Loop),
    quietly(fun() -> kill(Process) end).

serves(Key) ->
    Loop = tokamak_router:loop_for(Key),
    Id = tokamak_id:next(),
    ok = tokamak_loop:post(Loop, Id, user, Key),
    ?assertEqual([{Id, user, Key}], tokamak_loop:poll(Loop, 5000)).

a_destroyed_loop_is_replaced() ->
    Loop = tokamak_router:loop_for(key),
    ok = tokamak_loop:destroy(Loop),
    wait_until(fun() -> tokamak_router:loop_for(key) =/= Loop end),
    serves(key).

users_are_told() ->
    Loop = tokamak_router:loop_for(key),
    Reference = tokamak_loop:register(Loop, tokamak_id:next(), self()),
    Test = self(),
    Poller = spawn_link(fun() -> Test ! {polled, tokamak_loop:poll(Loop, infinity)} end),
    wait_for({status, waiting}, fun() -> process_info(Poller, status) end),
    ok = kill_loop(Loop),
    receive
        {tokamak, Reference, closed} -> ok
    after 1000 -> erlang:error(handler_not_told)
    end,
    receive
        {polled, Result} -> ?assertEqual({error, closed}, Result)
    after 1000 -> erlang:error(poller_not_told)
    end,
    wait_until(fun() -> tokamak_router:loop_for(key) =/= Loop end).

a_killed_router_finds_its_loops() ->
    Loops = tokamak_router:loops(),
    Router = whereis(tokamak_router),
    quietly(fun() -> kill(Router) end),
    wait_until(fun() -> is_pid(whereis(tokamak_router)) end),
    %% It answers when it has taken the loops over.
    _ = sys:get_state(tokamak_router),
    ?assertEqual(Loops, tokamak_router:loops()),
    ok = kill_loop(hd(Loops)),
    wait_until(fun() -> tokamak_router:loops() -- Loops =/= [] end),
    ?assertEqual(length(Loops), length(tokamak_router:loops())).

all_are_killed() ->
    Loops = tokamak_router:loops(),
    Processes = [Process || Loop <- Loops, #{owner := Process} <- [tokamak_loop:info(Loop)]],
    quietly(fun() ->
        ok = sys:suspend(tokamak_router),
        [ok = kill(Process) || Process <- Processes],
        ok = kill(whereis(tokamak_router)),
        wait_until(fun() ->
            New = tokamak_router:loops(),
            length(New) =:= length(Loops) andalso New -- Loops =:= New
        end)
    end),
    [serves(Key) || Key <- lists:seq(1, 10)].

strange_messages() ->
    tokamak_router ! hello,
    tokamak_router ! {'DOWN', make_ref(), process, self(), normal},
    ok = gen_server:cast(tokamak_router, hello),
    ?assertEqual({error, unknown}, gen_server:call(tokamak_router, hello)),
    serves(key).
