%% SPDX-License-Identifier: Apache-2.0
%% Random terms for functions that must not be harmed by them.
-module(tokamak_garbage).

-export([handles/0, term/1, pick_element/1, in_peer/3]).
-export([still_works/0]).

-include_lib("eunit/include/eunit.hrl").

%% @doc Has a function throw garbage in another VM, with a seed: what it returns, once that VM has shown that it
%% still works.
in_peer(Module, Function, Seconds) ->
    Seed = rand:uniform(1 bsl 32),
    tokamak_test:with_directory(fun(Directory) ->
        Peer = tokamak_test:start_peer(),
        %% What is opened for writing is opened here.
        ok = peer:call(Peer, file, set_cwd, [Directory]),
        {ok, _} = peer:call(Peer, application, ensure_all_started, [tokamak]),
        ok = peer:call(Peer, logger, set_primary_config, [level, critical]),
        {Count, Wrong} = peer:call(Peer, Module, Function, [Seed], Seconds * 1000),
        ok = peer:call(Peer, ?MODULE, still_works, [], 30_000),
        ok = peer:call(Peer, application, stop, [tokamak], 30_000),
        ok = peer:stop(Peer),
        [?debugFmt("~0P", [Each, 60]) || Each <- Wrong],
        ?assertEqual({seed, Seed, []}, {seed, Seed, Wrong}),
        Count
    end).

%% @doc Own and foreign, open and closed, watched and not.
handles() ->
    {ok, Raw} = tokamak_loop:open(#{max_queue => 100}),
    {ok, Select} = tokamak_loop:open(#{backend => select}),
    {ok, Closed} = tokamak_loop:open(),
    ok = tokamak_loop:destroy(Closed),
    {ok, Supervised} = tokamak_loop:new(),
    Foreign = tokamak_router:loop_for(self()),
    {ok, Read, Write} = tokamak_fd:pipe(),
    {ok, ClosedFd, Other} = tokamak_fd:pipe(),
    ok = tokamak_fd:close(ClosedFd),
    {ok, File} = tokamak_fd:open(<<"garbage">>, [read, write]),
    ok = tokamak_loop:add_reader(Raw, Read, 1),
    ok = tokamak_loop:add_writer(Select, Write, 2),
    _ = tokamak_loop:register(Supervised, 3, self()),
    {Raw, Select, Closed, Supervised, Foreign, Read, Write, ClosedFd, Other, File, tokamak_nif:table()}.

%% @doc Any element of a tuple.
pick_element(Tuple) ->
    element(rand:uniform(tuple_size(Tuple)), Tuple).

%% @doc A random term; handles are thrown more often than anything else.
term(Handles) ->
    term(Handles, 4).

term(Handles, Depth) ->
    case rand:uniform(12) of
        N when N =< 4 -> pick_element(Handles);
        5 -> rand:uniform(24) - 4;
        6 -> pick_element(integers());
        7 -> pick_element(atoms());
        8 -> pick_element(binaries());
        9 -> pick_element(others());
        10 -> sometimes_large();
        _ when Depth =:= 0 -> [];
        11 -> list(Handles, Depth - 1);
        12 -> compound(Handles, Depth - 1)
    end.

%% They take their time.
sometimes_large() ->
    case rand:uniform(8) of
        1 -> pick_element(large());
        _ -> []
    end.

integers() ->
    Powers = [7, 8, 15, 16, 28, 31, 32, 47, 48, 59, 60, 63, 64, 65, 200],
    list_to_tuple([Sign * ((1 bsl Power) + Off) || Power <- Powers, Sign <- [1, -1], Off <- [-1, 0, 1]]).

atoms() ->
    {read, write, raw, supervised, native, select, undefined, user, timer, append, create, truncate,
        exclusive, true, false, ok, error, infinity, '', all, 'with space', tokamak, echo, sleep, count}.

binaries() ->
    <<_:3/binary, Part/binary>> = <<"a part of a binary">>,
    {<<>>, <<0>>, <<"text">>, <<1:1>>, <<5:13>>, Part, <<255, 254, 253>>, <<"/dev/null">>, <<"garbage">>,
        <<"/nowhere/at/all">>, <<"nul", 0>>}.

others() ->
    {self(), dead(), whereis(tokamak_sup), make_ref(), hd(erlang:ports()), fun erlang:max/2, fun() -> ok end,
        1.5, -0.0, 1.0e308, #{}, {}, [], foreign_pid()}.

dead() ->
    {Pid, Monitor} = spawn_monitor(fun() -> ok end),
    receive
        {'DOWN', Monitor, process, Pid, _} -> Pid
    end.

foreign_pid() ->
    binary_to_term(<<131, 88, 119, 10, "other@host", 1:32, 0:32, 1:32>>).

%% Made once: they are what a native function must not recurse into, or copy at leisure.
large() ->
    case get(large) of
        undefined ->
            Deep = fun(Wrap) -> lists:foldl(fun(_, Term) -> Wrap(Term) end, [], lists:seq(1, 20_000)) end,
            Large = {
                Deep(fun(Term) -> [Term] end),
                Deep(fun(Term) -> {Term} end),
                Deep(fun(Term) -> #{k => Term} end),
                Deep(fun(Term) -> [1 | Term] end),
                lists:seq(1, 10_000) ++ improper,
                lists:duplicate(5000, <<"x">>),
                binary:copy(<<"y">>, 1_000_000),
                maps:from_list([{N, N} || N <- lists:seq(1, 1000)]),
                list_to_tuple(lists:seq(1, 10_000))
            },
            _ = put(large, Large),
            Large;
        Large ->
            Large
    end.

list(Handles, Depth) ->
    Items = [term(Handles, Depth) || _ <- lists:seq(1, rand:uniform(5))],
    case rand:uniform(4) of
        1 -> Items ++ tail(Handles, Depth);
        2 -> [pick_element(atoms()) || _ <- Items] ++ tail(Handles, Depth);
        3 -> [pick_element(binaries()) || _ <- Items] ++ tail(Handles, Depth);
        4 -> Items
    end.

tail(Handles, Depth) ->
    case rand:uniform(3) of
        1 -> term(Handles, Depth);
        _ -> []
    end.

compound(Handles, Depth) ->
    Items = [term(Handles, Depth) || _ <- lists:seq(1, rand:uniform(4))],
    case rand:uniform(3) of
        1 -> list_to_tuple(Items);
        2 -> maps:from_list([{Item, term(Handles, Depth)} || Item <- Items]);
        3 -> {pick_element(atoms()), Items}
    end.

%% @doc Calls, loops, descriptors and timers do what they should.
still_works() ->
    {ok, works} = tokamak:call(echo, [works]),
    {ok, Loop} = tokamak_loop:new(),
    {ok, Read, Write} = tokamak_fd:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    [{1, read, undefined}] = tokamak_loop:poll(Loop, 5000),
    {ok, <<"x">>} = tokamak_fd:read(Read, 10),
    Timer = tokamak_loop:start_timer(Loop, 1, 2),
    [{2, timer, Timer}] = tokamak_loop:poll(Loop, 5000),
    tokamak_loop:destroy(Loop).
