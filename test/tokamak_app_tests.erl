%% SPDX-License-Identifier: Apache-2.0
%% The application starts and stops, also a thousand times while it is used.
-module(tokamak_app_tests).

-include_lib("eunit/include/eunit.hrl").

-import(tokamak_test, [quietly/1, wait_for/2, wait_until/1, spawn_process/1, ask/2]).

-define(ROUNDS, 1000).

app_test_() ->
    {foreach, fun() -> ok end, fun(_) -> quietly(fun() -> application:stop(tokamak) end) end,
        tokamak_test:cases(120, [
            {"stopped, it makes no loops, and what was closed stays closed", fun stopped/0},
            {"stopping ends every loop and tells its users", fun stopping_tells_users/0},
            {"stopping ends its threads", fun stopping_ends_threads/0},
            {"a stop gives back descriptors, also those of loops whose handles live on", fun handles_hold_nothing/0},
            {"descriptors survive a stop and are watched after the next start", fun descriptors_survive/0},
            {"descriptors of processes that die at a stop are closed", fun dead_owners_at_stop/0},
            {"a wrong configuration is refused with key, value and what is expected", fun bad_config/0},
            {"it starts and stops a thousand times while it is used", fun again_and_again/0}
        ])}.

start() ->
    ok = application:start(tokamak).

stop() ->
    ok = quietly(fun() -> application:stop(tokamak) end).

stopped() ->
    start(),
    {ok, Loop} = tokamak_loop:new(),
    {ok, Raw} = tokamak_loop:open(),
    stop(),
    ?assertEqual({error, shutdown}, tokamak_loop:new()),
    ?assertEqual({error, shutdown}, tokamak_loop:new(#{name => some_name, backend => select})),
    ?assertEqual({error, shutdown}, tokamak_loop:open()),
    ?assertEqual({error, shutdown}, tokamak_loop:open(#{backend => select})),
    [
        ?assertEqual({error, closed}, Call())
     || Call <- [
            fun() -> tokamak_loop:post(Loop, 1, user, x) end,
            fun() -> tokamak_loop:poll(Loop, 0) end,
            fun() -> tokamak_loop:destroy(Loop) end,
            fun() -> tokamak_loop:register(Loop, 1, self()) end,
            fun() -> tokamak_loop:drain(Raw) end,
            fun() -> tokamak_loop:start_timer(Raw, 1, 1) end
        ]
    ],
    start(),
    ?assertEqual({error, closed}, tokamak_loop:post(Loop, 1, user, x)),
    ?assertEqual({error, closed}, tokamak_loop:drain(Raw)).

stopping_tells_users() ->
    start(),
    Test = self(),
    Users = [
        begin
            {ok, Loop} = tokamak_loop:new(#{backend => Backend}),
            Poller = spawn_link(fun() -> Test ! {self(), tokamak_loop:poll(Loop, infinity)} end),
            wait_for({status, waiting}, fun() -> process_info(Poller, status) end),
            {Poller, tokamak_loop:register(Loop, 1, self())}
        end
     || Backend <- [native, select]
    ],
    Raw = [
        begin
            {ok, Loop} = tokamak_loop:open(#{backend => Backend}),
            Loop
        end
     || Backend <- [native, select]
    ],
    stop(),
    [
        begin
            receive
                {Poller, Polled} -> ?assertEqual({error, closed}, Polled)
            after 1000 -> erlang:error(poller_not_told)
            end,
            receive
                {tokamak, Handler, closed} -> ok
            after 1000 -> erlang:error(handler_not_told)
            end
        end
     || {Poller, Handler} <- Users
    ],
    [
        begin
            receive
                {tokamak, Loop, ready} -> ok
            after 1000 -> erlang:error(owner_not_told)
            end,
            ?assertEqual({error, closed}, tokamak_loop:drain(Loop))
        end
     || Loop <- Raw
    ].

%% The janitor serves descriptors, which need no application.
stopping_ends_threads() ->
    stop_if_runs(),
    Before = tokamak_test:threads("tokamak-"),
    start(),
    {ok, Loop} = tokamak_loop:new(),
    _ = tokamak_loop:start_timer(Loop, 1, 1),
    [_] = tokamak_loop:poll(Loop, 5000),
    %% A thread gives itself its name when it first runs.
    wait_for([], fun() ->
        ["tokamak-timers", "tokamak-reactor"] -- [Name || {_, Name} <- tokamak_test:threads("tokamak-")]
    end),
    stop(),
    wait_for([], fun() ->
        [T || {_, Name} = T <- tokamak_test:threads("tokamak-") -- Before, Name =/= "tokamak-janitor"]
    end),
    ?assertMatch(#{loops := 0}, tokamak_nif:counts()).

stop_if_runs() ->
    quietly(fun() -> application:stop(tokamak) end).

handles_hold_nothing() ->
    stop_if_runs(),
    Before = tokamak_test:open_files(),
    start(),
    Loops = [
        begin
            {ok, Loop} = Make(#{backend => Backend}),
            Loop
        end
     || Make <- [fun tokamak_loop:new/1, fun tokamak_loop:open/1], Backend <- [native, select]
    ],
    stop(),
    wait_until(fun() -> tokamak_test:open_files() =< Before end),
    [?assertEqual({error, closed}, tokamak_loop:post(Loop, 1, user, x)) || Loop <- Loops].

descriptors_survive() ->
    start(),
    {Read, Write} = tokamak_test:pipe(),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    [
        begin
            {ok, Loop} = tokamak_loop:new(#{backend => Backend}),
            ok = tokamak_loop:add_reader(Loop, Read, 1),
            ?assertEqual([{1, read, undefined}], tokamak_loop:poll(Loop, 5000)),
            stop(),
            start()
        end
     || Backend <- [native, select, select, native]
    ],
    ?assertEqual({ok, <<"x">>}, tokamak_fd:read(Read, 10)).

dead_owners_at_stop() ->
    start(),
    Before = tokamak_test:open_files(),
    [DiesBefore, DiesAfter] = [
        spawn_process(fun() ->
            {ok, Loop} = tokamak_loop:new(#{backend => select}),
            Pipes = [tokamak_test:pipe() || _ <- lists:seq(1, 250)],
            [ok = tokamak_loop:add_reader(Loop, Read, 1) || {Read, _} <- Pipes]
        end)
     || _ <- [before, 'after']
    ],
    [250 = length(ask(Owner, fun(Watched) -> Watched end)) || Owner <- [DiesBefore, DiesAfter]],
    ok = tokamak_test:kill(DiesBefore),
    stop(),
    ok = tokamak_test:kill(DiesAfter),
    %% Those that were selected wait for the next start.
    wait_until(fun() -> tokamak_test:open_files() < Before + 500 end),
    start(),
    wait_until(fun() -> tokamak_test:open_files() =< Before end).

bad_config() ->
    Wrong = [
        {loops, 0},
        {loops, many},
        {loops, 1025},
        {worker_threads, -1},
        {max_in_flight, 1.5},
        {drain_timeout, infinity}
    ],
    [
        begin
            ok = application:set_env(tokamak, Key, Value),
            Result = quietly(fun() -> application:start(tokamak) end),
            ok = application:unset_env(tokamak, Key),
            ?assertMatch({error, {{bad_config, Key, Value, _}, _}}, Result),
            {error, {{bad_config, _, _, Expected}, _}} = Result,
            ?assertMatch({match, _}, re:run(Expected, "^an? [a-z ]+ from [0-9]+ to [-^0-9]+$"))
        end
     || {Key, Value} <- Wrong
    ],
    start(),
    ?assertEqual(1, length([1 || Loop <- [tokamak_router:loop_for(x)], is_reference(Loop)])).

again_and_again() ->
    stop_if_runs(),
    Before = tokamak_test:resources(),
    Uses = counters:new(1, []),
    Users = [spawn_process(fun() -> use(N, Uses) end) || N <- lists:seq(1, 4)],
    Monitors = [monitor(process, User) || User <- Users],
    quietly(fun() ->
        tokamak_test:repeat(?ROUNDS, fun() ->
            ok = application:start(tokamak),
            receive
            after rand:uniform(3) - 1 -> ok = application:stop(tokamak)
            end
        end)
    end),
    ?assert(counters:get(Uses, 1) > ?ROUNDS),
    %% None of them has ended.
    ?assertEqual([], [Reason || {'DOWN', _, process, _, Reason} <- tokamak_test:mailbox()]),
    _ = [demonitor(Monitor, [flush]) || Monitor <- Monitors],
    start(),
    {ok, Loop} = tokamak_loop:new(),
    ok = tokamak_loop:post(Loop, 1, user, x),
    ?assertEqual([{1, user, x}], tokamak_loop:poll(Loop, 5000)),
    [ok = tokamak_test:kill(User) || User <- Users],
    %% Descriptors that become orphans after the stop would wait for the next start.
    wait_until(fun() -> maps:get(fds, tokamak_nif:counts()) =:= 0 end),
    stop(),
    %% The janitor's thread stays, and this VM may never have had it before.
    tokamak_test:given_back(maps:update_with(threads, fun(N) -> N + 1 end, Before)).

%% Uses what there is; that it has ended is all that may go wrong.
use(N, Uses) ->
    [ok = expected(Use(N), Uses) || Use <- [fun use_router/1, fun use_new/1, fun use_raw/1]],
    use(N, Uses).

expected(ok, Uses) ->
    counters:add(Uses, 1, 1);
expected({error, Reason}, _Uses) when Reason =:= shutdown; Reason =:= closed ->
    %% Leave the schedulers to the start or stop that is under way.
    receive
    after 1 -> ok
    end;
expected(Other, _Uses) ->
    exit({unexpected, Other}).

use_router(N) ->
    case tokamak_router:loop_for(N) of
        {error, _} = Error ->
            Error;
        Loop ->
            Id = tokamak_id:next(),
            case tokamak_loop:register(Loop, Id, self()) of
                {error, _} = Error -> Error;
                Reference -> use_handler(Loop, Id, Reference)
            end
    end.

use_handler(Loop, Id, Reference) ->
    case tokamak_loop:post(Loop, Id, user, x) of
        ok ->
            receive
                {tokamak, Reference, {event, Id, user, x}} -> tokamak_loop:unregister(Loop, Id);
                {tokamak, Reference, closed} -> {error, closed}
            after 5000 -> {error, handler_waits_for_ever}
            end;
        Error ->
            Error
    end.

use_new(N) ->
    Backend = lists:nth(1 + N rem 2, [native, select]),
    case tokamak_loop:new(#{backend => Backend}) of
        {ok, Loop} -> use_descriptor(Loop, fun() -> tokamak_loop:poll(Loop, 5000) end);
        Error -> Error
    end.

use_raw(N) ->
    Backend = lists:nth(1 + N rem 2, [select, native]),
    case tokamak_loop:open(#{backend => Backend}) of
        {ok, Loop} ->
            Result = use_descriptor(Loop, fun() -> tokamak_loop:poll(Loop, 5000) end),
            flush(Loop),
            Result;
        Error ->
            Error
    end.

flush(Loop) ->
    receive
        {tokamak, Loop, _} -> flush(Loop)
    after 0 -> ok
    end.

use_descriptor(Loop, Poll) ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    Result =
        case tokamak_loop:add_reader(Loop, Read, 1) of
            ok ->
                case Poll() of
                    [{1, read, undefined}] -> tokamak_loop:destroy(Loop);
                    Other -> Other
                end;
            Error ->
                Error
        end,
    [ok = tokamak_fd:close(Fd) || Fd <- [Read, Write]],
    Result.
