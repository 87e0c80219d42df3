%% SPDX-License-Identifier: Apache-2.0
%% A demonstration of event loops: one loop, polled by one process, serves descriptors that other OS processes feed,
%% periodic timers, and posts of many Erlang processes. It counts what arrives, prints the counts a few
%% times a second, and checks at the end that nothing is missing, twice there, damaged or early.
-module(tokamak_loop_demo).

-export([main/0]).

-define(TIME_LIMIT, 9000).
-define(REPORT_INTERVAL, 250).
-define(PERIODS, lists:seq(10, 59)).
-define(TICKING_TIME, 2000).
-define(POSTERS, 500).
-define(POSTS_EACH, 180).

-record(stream, {name, fd, bytes = 0, checksum = erlang:crc32(<<>>), expected, open = true}).
-record(ticker, {period, left, due}).
-record(posters, {next = #{}, arrived = 0}).
-record(state, {loop, started, sources, ticks = 0, early = 0}).

main() ->
    try run() of
        true -> ok;
        false -> halt(1)
    catch
        Class:Reason:Stack ->
            io:format("~ndemo: ~p~n", [{Class, Reason, Stack}]),
            halt(1)
    end.

run() ->
    {ok, _} = application:ensure_all_started(tokamak),
    {ok, Loop} = tokamak_loop:new(),
    Dir = tokamak_loop_demo_sources:make_directory(),
    try
        State = serve(start(Loop, Dir)),
        summary(State)
    after
        tokamak_loop:destroy(Loop),
        tokamak_loop_demo_sources:remove_directory(Dir)
    end.

%%% Sources: each has a callback id.

start(Loop, Dir) ->
    Streams = [watch(Loop, Stream) || Stream <- tokamak_loop_demo_sources:open(Dir)],
    Tickers = [start_ticker(Loop, Period) || Period <- ?PERIODS],
    PostId = tokamak_id:next(),
    ok = tokamak_loop_demo_sources:start_posters(Loop, PostId, ?POSTERS, ?POSTS_EACH),
    Sources = maps:from_list(
        [{PostId, #posters{}}, start_once(Loop, ?REPORT_INTERVAL, report),
         start_once(Loop, ?TIME_LIMIT, deadline)] ++ Streams ++ Tickers
    ),
    #state{loop = Loop, started = now_us(), sources = Sources}.

watch(Loop, {Name, Fd, Expected}) ->
    Id = tokamak_id:next(),
    ok = tokamak_loop:add_reader(Loop, Fd, Id),
    {Id, #stream{name = Name, fd = Fd, expected = Expected}}.

start_ticker(Loop, Period) ->
    Id = tokamak_id:next(),
    Ticker = #ticker{period = Period, left = ?TICKING_TIME div Period, due = now_us() + Period * 1000},
    _ = tokamak_loop:start_timer(Loop, Period, Id),
    {Id, Ticker}.

start_once(Loop, Milliseconds, What) ->
    Id = tokamak_id:next(),
    _ = tokamak_loop:start_timer(Loop, Milliseconds, Id),
    {Id, What}.

%%% Serving

serve(State) ->
    Events = tokamak_loop:poll(State#state.loop, ?TIME_LIMIT),
    case lists:foldl(fun event/2, State, Events) of
        {timeout, Served} -> Served;
        Served -> serve_on(is_complete(Served), Served)
    end.

serve_on(true, State) -> State;
serve_on(false, State) -> serve(State).

event(_Event, {timeout, State}) ->
    {timeout, State};
event({Id, Type, Data}, #state{sources = Sources} = State) ->
    case {Type, maps:get(Id, Sources)} of
        {read, #stream{} = Stream} -> put_source(Id, read(State#state.loop, Stream), State);
        {timer, #ticker{} = Ticker} -> tick(Id, Ticker, State);
        {user, #posters{} = Posters} -> put_source(Id, arrived(Data, Posters), State);
        {timer, report} -> report(Id, State);
        {timer, deadline} -> {timeout, State}
    end.

put_source(Id, Source, #state{sources = Sources} = State) ->
    State#state{sources = Sources#{Id := Source}}.

%% One read for each event: what is left is reported again.
read(Loop, #stream{fd = Fd, bytes = Bytes, checksum = Checksum} = Stream) ->
    case tokamak_fd:read(Fd, 65536) of
        {ok, Data} ->
            Arrived = Stream#stream{
                bytes = Bytes + byte_size(Data), checksum = erlang:crc32(Checksum, Data)
            },
            close_if_complete(Loop, Arrived);
        again ->
            Stream;
        eof ->
            close(Loop, Stream)
    end.

%% `tail -f' never comes to an end.
close_if_complete(Loop, #stream{name = tail, bytes = Bytes, expected = {Bytes, _}} = Stream) ->
    close(Loop, Stream);
close_if_complete(_Loop, Stream) ->
    Stream.

close(Loop, #stream{fd = Fd} = Stream) ->
    ok = tokamak_loop:remove_reader(Loop, Fd),
    ok = tokamak_fd:close(Fd),
    Stream#stream{open = false}.

tick(Id, #ticker{period = Period, left = Left, due = Due}, State) ->
    Now = now_us(),
    _ = Left > 1 andalso tokamak_loop:start_timer(State#state.loop, Period, Id),
    Next = #ticker{period = Period, left = Left - 1, due = Now + Period * 1000},
    Counted = State#state{
        ticks = State#state.ticks + 1, early = State#state.early + count(Now < Due)
    },
    put_source(Id, Next, Counted).

count(true) -> 1;
count(false) -> 0.

%% The posts of each process have to come in order.
arrived({Poster, N}, #posters{next = Next, arrived = Arrived}) ->
    N = maps:get(Poster, Next, 1),
    #posters{next = Next#{Poster => N + 1}, arrived = Arrived + 1}.

report(Id, State) ->
    _ = tokamak_loop:start_timer(State#state.loop, ?REPORT_INTERVAL, Id),
    io:put_chars(line(State)),
    State.

%%% Results

is_complete(#state{sources = Sources} = State) ->
    State#state.ticks =:= expected_ticks() andalso
        lists:all(fun is_source_complete/1, maps:values(Sources)).

is_source_complete(#stream{open = Open}) -> not Open;
is_source_complete(#posters{arrived = Arrived}) -> Arrived =:= ?POSTERS * ?POSTS_EACH;
is_source_complete(_) -> true.

expected_ticks() ->
    lists:sum([?TICKING_TIME div Period || Period <- ?PERIODS]).

streams(#state{sources = Sources}) ->
    lists:keysort(#stream.name, [Stream || #stream{} = Stream <- maps:values(Sources)]).

posts(#state{sources = Sources}) ->
    hd([Arrived || #posters{arrived = Arrived} <- maps:values(Sources)]).

line(State) ->
    Seconds = (now_us() - State#state.started) / 1000000,
    [
        io_lib:format("~5.2f s", [Seconds]),
        [io_lib:format("  ~s ~b bytes", [Name, Bytes])
         || #stream{name = Name, bytes = Bytes} <- streams(State)],
        io_lib:format("  timers ~b  posts ~b~n", [State#state.ticks, posts(State)])
    ].

summary(State) ->
    io:put_chars(line(State)),
    Results =
        [{Name, Bytes, "bytes", {Bytes, Checksum} =:= Expected}
         || #stream{name = Name, bytes = Bytes, checksum = Checksum, expected = Expected} <- streams(State)] ++
        [{timers, State#state.ticks, "ticks", State#state.ticks =:= expected_ticks()},
         {early, State#state.early, "ticks", State#state.early =:= 0},
         {posts, posts(State), "events", posts(State) =:= ?POSTERS * ?POSTS_EACH}],
    io:format("~n"),
    [io:format("~-8s~10b ~-8s~s~n", [Name, Count, Unit, verdict(Ok)]) || {Name, Count, Unit, Ok} <- Results],
    #{drained := Drained, wakes := Wakes} = tokamak_loop:info(State#state.loop),
    io:format("~b events through one loop, with ~b wake messages~n", [Drained, Wakes]),
    lists:all(fun({_, _, _, Ok}) -> Ok end, Results).

verdict(true) -> "ok";
verdict(false) -> "WRONG".

now_us() ->
    erlang:monotonic_time(microsecond).
