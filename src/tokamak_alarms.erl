%% SPDX-License-Identifier: Apache-2.0
%% @doc Raises the alarms `{tokamak, starvation}' and `{tokamak, overload}'.
%%
%% While something is in flight, or an alarm is set, this process looks at the engines once a period: a second,
%% or `starvation_threshold' if that is shorter. With nothing in flight it sleeps until an engine tells it that
%% something is (`{active, Engine}'), so that an idle VM stays idle.
%%
%% `starvation' is set when all workers of an engine are busy and none of them gets to a probe within
%% `starvation_threshold': an operation blocks its worker, or there is more work than workers. It is cleared after
%% three looks in a row that found a worker asleep or had a probe answered within half of the threshold.
%%
%% `overload' is set when, since the look before, calls were refused because `max_in_flight' were running, or
%% events because a loop was full. It is cleared after three looks in a row that found nothing refused and in
%% each engine at most three quarters of `max_in_flight' running.
%%
%% Alarms go to `alarm_handler', if sasl runs, or else to the log.
%% @private
-module(tokamak_alarms).
-behaviour(gen_server).

-export([start_link/0, watch/1, set/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").

%% Looks in a row that have to find all well before an alarm is cleared.
-define(CALM, 3).
%% The share of `max_in_flight' that may run in an engine when the alarm `overload' is cleared.
-define(CALM_LOAD, 0.75).
-define(LONGEST_PERIOD, 1000).
-define(SET_TIMEOUT, 1000).

-record(engine, {
    %% A probe that was sent, and when.
    probe = none :: none | {reference(), Since :: integer()},
    refused = {0, 0} :: {Calls :: non_neg_integer(), Events :: non_neg_integer()},
    active = false :: boolean()
}).

-record(state, {
    threshold :: pos_integer(),
    engines = #{} :: #{module() => #engine{}},
    timer = none :: none | reference(),
    %% The alarms that are set, with the number of looks that found all well since.
    alarms = #{} :: #{alarm() => non_neg_integer()}
}).

-type alarm() :: starvation | overload.
%% `near' trouble keeps an alarm that is set, but sets none.
-type trouble() :: {alarm(), near | Description :: map()}.

-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc An engine was started.
-spec watch(module()) -> ok.
watch(Engine) ->
    gen_server:cast(?MODULE, {watch, Engine}).

%% @doc The alarms that are set.
-spec set() -> [alarm()].
set() ->
    try
        gen_server:call(?MODULE, set, ?SET_TIMEOUT)
    catch
        exit:_ -> []
    end.

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    _ = process_flag(trap_exit, true),
    State = #state{threshold = tokamak_config:get(starvation_threshold)},
    {ok, lists:foldl(fun add/2, State, tokamak_engines:all())}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, [alarm()] | {error, unknown}, #state{}}.
handle_call(set, _From, State) ->
    {reply, lists:sort(maps:keys(State#state.alarms)), State};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({watch, Engine}, State) ->
    {noreply, add(Engine, State)};
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({active, Engine}, State) ->
    {noreply, activate(Engine, State)};
handle_info({timeout, Timer, look}, #state{timer = Timer} = State) ->
    {noreply, look(State#state{timer = none})};
handle_info({timeout, _Timer, {late, Engine, Probe}}, State) ->
    {noreply, late(Engine, Probe, State)};
handle_info({tokamak, Probe, probed}, State) ->
    {noreply, probed(Probe, State)};
handle_info(_Message, State) ->
    {noreply, State}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{alarms = Alarms}) ->
    lists:foreach(fun clear/1, maps:keys(Alarms)).

%% What was refused before counts for nothing.
add(Engine, #state{engines = Engines} = State) when is_map_key(Engine, Engines) ->
    rest(Engine, State);
add(Engine, #state{engines = Engines} = State) ->
    Known =
        case Engine:op_look(undefined) of
            {_, _, _, Calls, Events} -> #engine{refused = {Calls, Events}};
            shutdown -> #engine{}
        end,
    rest(Engine, State#state{engines = Engines#{Engine => Known}}).

%% Has the engine tell when something happens, unless something does.
rest(Engine, State) ->
    case Engine:op_watch() of
        idle -> update(Engine, fun(Known) -> Known#engine{active = false} end, State);
        active -> activate(Engine, State)
    end.

activate(Engine, State) ->
    schedule(update(Engine, fun(Known) -> Known#engine{active = true} end, State)).

update(Engine, Fun, #state{engines = Engines} = State) ->
    State#state{engines = maps:update_with(Engine, Fun, Engines)}.

schedule(#state{timer = none, threshold = Threshold} = State) ->
    State#state{timer = erlang:start_timer(min(Threshold, ?LONGEST_PERIOD), self(), look)};
schedule(State) ->
    State.

%% Looks at all engines, and again after a period if there is anything to see.
look(#state{engines = Engines} = State) ->
    {Troubles, Looked} = lists:mapfoldl(fun look_at/2, State, maps:keys(Engines)),
    Judge = fun(Alarm, Judged) -> judge(Alarm, worst(Alarm, lists:append(Troubles)), Judged) end,
    Judged = lists:foldl(Judge, Looked, [overload, starvation]),
    Active = [Engine || {Engine, #engine{active = true}} <- maps:to_list(Judged#state.engines)],
    case {Active, map_size(Judged#state.alarms)} of
        {[], 0} -> Judged;
        _ -> schedule(Judged)
    end.

-spec look_at(module(), #state{}) -> {[trouble()], #state{}}.
look_at(Engine, #state{engines = Engines} = State) ->
    #{Engine := #engine{probe = Probe} = Known} = Engines,
    Reference =
        case Probe of
            none -> make_ref();
            _UnderWay -> undefined
        end,
    case Engine:op_look(Reference) of
        shutdown ->
            {[], update(Engine, fun(_) -> Known#engine{probe = none, active = false} end, State)};
        {Workers, InFlight, Max, Calls, Events} ->
            Refused = {Calls, Events},
            Sent = sent(Workers, Reference, Engine, Probe, State),
            Looked = Known#engine{probe = Sent, refused = Refused},
            Troubles = starvation(Probe, State) ++ overload(Engine, Known#engine.refused, Refused, InFlight / Max),
            {Troubles, settle(Engine, InFlight, Looked, update(Engine, fun(_) -> Looked end, State))}
    end.

sent(busy, Reference, Engine, none, #state{threshold = Threshold}) ->
    _ = erlang:start_timer(Threshold, self(), {late, Engine, Reference}),
    {Reference, erlang:monotonic_time(millisecond)};
sent(_Workers, _Reference, _Engine, Probe, _State) ->
    Probe.

settle(Engine, 0, #engine{probe = none}, State) -> rest(Engine, State);
settle(_Engine, _InFlight, _Looked, State) -> State.

overload(_Engine, Refused, Refused, Load) when Load =< ?CALM_LOAD ->
    [];
overload(_Engine, Refused, Refused, _Load) ->
    [{overload, near}];
overload(Engine, {CallsBefore, EventsBefore}, {Calls, Events}, _Load) ->
    Refused = #{refused_calls => Calls - CallsBefore, refused_events => Events - EventsBefore},
    [{overload, Refused#{engine => Engine}}].

starvation(none, _State) ->
    [];
starvation({_Reference, Since}, #state{threshold = Threshold}) ->
    case erlang:monotonic_time(millisecond) - Since of
        Waited when 2 * Waited > Threshold -> [{starvation, near}];
        _ -> []
    end.

%% `none', `near', or a description.
worst(Alarm, Troubles) ->
    lists:foldl(
        fun
            ({A, Trouble}, Worst) when A =:= Alarm, not is_map(Worst) -> Trouble;
            (_, Worst) -> Worst
        end,
        none,
        Troubles
    ).

judge(Alarm, none, #state{alarms = Alarms} = State) ->
    case Alarms of
        #{Alarm := Calm} when Calm + 1 >= ?CALM ->
            clear(Alarm),
            State#state{alarms = maps:remove(Alarm, Alarms)};
        #{Alarm := Calm} ->
            State#state{alarms = Alarms#{Alarm := Calm + 1}};
        _ ->
            State
    end;
judge(Alarm, _Trouble, #state{alarms = Alarms} = State) when is_map_key(Alarm, Alarms) ->
    State#state{alarms = Alarms#{Alarm := 0}};
judge(_Alarm, near, State) ->
    State;
judge(Alarm, Description, #state{alarms = Alarms} = State) ->
    raise(Alarm, Description),
    State#state{alarms = Alarms#{Alarm => 0}}.

late(Engine, Probe, #state{engines = Engines, threshold = Threshold} = State) ->
    case Engines of
        #{Engine := #engine{probe = {Probe, _Since}}} ->
            Description = #{engine => Engine, threshold => Threshold},
            schedule(judge(starvation, Description, State));
        _ ->
            State
    end.

probed(Probe, #state{engines = Engines} = State) ->
    case [Engine || {Engine, #engine{probe = {Sent, _}}} <- maps:to_list(Engines), Sent =:= Probe] of
        [Engine] ->
            #{Engine := Known} = Engines,
            Trouble = worst(starvation, starvation(Known#engine.probe, State)),
            Answered = update(Engine, fun(_) -> Known#engine{probe = none} end, State),
            keep(starvation, Trouble, Answered);
        [] ->
            State
    end.

%% Only a look counts as one that found all well.
keep(_Alarm, none, State) -> State;
keep(Alarm, Trouble, State) -> judge(Alarm, Trouble, State).

%% Messages that alarm_handler documents: sasl need not be there.
raise(Alarm, Description) ->
    Id = {tokamak, Alarm},
    case whereis(alarm_handler) of
        undefined ->
            ?LOG_WARNING("tokamak: alarm ~p is set: ~tp", [Alarm, Description], #{domain => [tokamak], alarm => Id});
        Handler ->
            gen_event:notify(Handler, {set_alarm, {Id, Description}})
    end.

clear(Alarm) ->
    Id = {tokamak, Alarm},
    case whereis(alarm_handler) of
        undefined ->
            ?LOG_NOTICE("tokamak: alarm ~p is cleared", [Alarm], #{domain => [tokamak], alarm => Id});
        Handler ->
            gen_event:notify(Handler, {clear_alarm, Id})
    end.
